//! What clients did with services in the present interval: one entry for each pair that had something to do with
//! each other. Worker's thread; bounded, never allocates after start. What finds no room is the caller's to count.

use super::Party;
use super::dense::Dense;
use crate::decode::{Address, FlowKey};
use crate::judge::message::Dealing;

#[derive(Debug)]
pub(super) struct Pairs {
    /// By the client's address and the service.
    dealings: Dense<(Address, Party), Dealing>,
    secret: u64,
}

impl Pairs {
    pub fn new(capacity: u32, secret: u64) -> Pairs {
        Pairs { dealings: Dense::new(capacity), secret }
    }

    /// What the two did, made if there is nothing yet and it `may` be; `None` if it may not, or there is no room.
    #[inline]
    pub fn entry(
        &mut self,
        client: &Party,
        service: &Party,
        may: impl FnOnce() -> bool,
    ) -> Option<&mut Dealing> {
        let secret = self.secret;
        let hash = || {
            let key = FlowKey {
                low: client.addr,
                high: service.addr,
                low_port: 0,
                high_port: service.port,
                proto: service.proto,
                v6: service.v6,
            };
            key.hash(secret) as u32
        };
        self.dealings.entry(&(client.addr, *service), hash, may)
    }

    pub fn take(&mut self) -> Option<(Party, Party, Dealing)> {
        let ((addr, service), dealing) = self.dealings.take()?;
        Some((Party { addr, port: 0, proto: 0, v6: service.v6 }, service, dealing))
    }

    pub fn is_filling(&self) -> bool {
        self.dealings.is_filling()
    }

    pub fn is_empty(&self) -> bool {
        self.dealings.is_empty()
    }
}
