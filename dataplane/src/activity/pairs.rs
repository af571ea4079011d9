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

    fn hash(secret: u64, client: &Party, service: &Party) -> u32 {
        let key = FlowKey {
            low: client.addr,
            high: service.addr,
            low_port: 0,
            high_port: service.port,
            proto: service.proto,
            v6: service.v6,
        };
        key.hash(secret) as u32
    }

    pub fn find(&mut self, client: &Party, service: &Party) -> Option<&mut Dealing> {
        let secret = self.secret;
        self.dealings.find(&(client.addr, *service), || Pairs::hash(secret, client, service))
    }

    /// A new entry, of a pair that [`Pairs::find`] didn't find.
    pub fn make(&mut self, client: &Party, service: &Party) -> Option<&mut Dealing> {
        let secret = self.secret;
        self.dealings.entry(&(client.addr, *service), || Pairs::hash(secret, client, service))
    }

    pub fn take(&mut self) -> Option<(Party, Party, Dealing)> {
        let ((addr, service), dealing) = self.dealings.take()?;
        Some((Party { addr, port: 0, proto: 0, v6: service.v6 }, service, dealing))
    }

    pub fn is_empty(&self) -> bool {
        self.dealings.is_empty()
    }
}
