//! What clients did with services in the present interval: one entry for each pair that had something to do with
//! each other. Worker's thread; bounded, never allocates after start. What finds no room is the caller's to count.

use super::{PROBES, Party};
use crate::decode::{Address, FlowKey};
use crate::judge::message::Dealing;

#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C)]
struct Cell {
    client: Address,
    service: Address,
    port: u16,
    proto: u8,
    v6: bool,
    used: bool,
    dealing: Dealing,
}

#[derive(Debug)]
pub(super) struct Pairs {
    cells: Box<[Cell]>,
    mask: u32,
    secret: u64,
    /// Cells in use, in the order they were taken.
    used: Vec<u32>,
}

impl Pairs {
    pub fn new(capacity: u32, secret: u64) -> Pairs {
        let cells = (capacity.max(64) * 2).next_power_of_two();
        Pairs {
            cells: bytemuck::zeroed_slice_box(cells as usize),
            mask: cells - 1,
            secret,
            used: Vec::with_capacity(capacity.max(64) as usize),
        }
    }

    /// Places this pair may be in, nearest first.
    fn places(&self, client: &Party, service: &Party) -> impl Iterator<Item = u32> + use<> {
        let key = FlowKey {
            low: client.addr,
            high: service.addr,
            low_port: 0,
            high_port: service.port,
            proto: service.proto,
            v6: service.v6,
        };
        let (start, mask) = (key.hash(self.secret) as u32, self.mask);
        (0..PROBES).map(move |probe| start.wrapping_add(probe) & mask)
    }

    pub fn find(&mut self, client: &Party, service: &Party) -> Option<&mut Dealing> {
        let places = self.places(client, service);
        for at in places {
            let cell = &self.cells[at as usize];
            if !cell.used {
                return None;
            }
            let theirs = (cell.client, cell.service, cell.port, cell.proto);
            if theirs == (client.addr, service.addr, service.port, service.proto) {
                return Some(&mut self.cells[at as usize].dealing);
            }
        }
        None
    }

    /// A new entry, for a pair that has none; `None` if there is no room.
    pub fn make(&mut self, client: &Party, service: &Party) -> Option<&mut Dealing> {
        if self.used.len() == self.used.capacity() {
            return None;
        }
        let at = self.places(client, service).find(|at| !self.cells[*at as usize].used)?;
        self.used.push(at);
        let cell = &mut self.cells[at as usize];
        *cell = Cell {
            client: client.addr,
            service: service.addr,
            port: service.port,
            proto: service.proto,
            v6: service.v6,
            used: true,
            dealing: bytemuck::Zeroable::zeroed(),
        };
        Some(&mut cell.dealing)
    }

    pub fn take(&mut self) -> Option<(Party, Party, Dealing)> {
        let at = self.used.pop()?;
        let cell = &mut self.cells[at as usize];
        cell.used = false;
        let client = Party { addr: cell.client, port: 0, proto: 0, v6: cell.v6 };
        let service = Party { addr: cell.service, port: cell.port, proto: cell.proto, v6: cell.v6 };
        Some((client, service, cell.dealing))
    }

    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}
