//! Asking the kernel about interfaces, and hearing from it when one changes (netlink(7), rtnetlink(7)).
//!
//! Main thread. Asks and listens; changes nothing. `nic` reads the answers.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// RTM_NEWLINK and RTM_DELLINK, include/uapi/linux/rtnetlink.h.
const LINK_MESSAGES: std::ops::RangeInclusive<u16> = 16..=17;
/// RTMGRP_LINK, likewise.
const LINK_GROUP: u32 = 1;
/// Bytes of a message's head (`struct nlmsghdr`).
const HEAD: usize = 16;

/// Everything the kernel answers to a request for all of a kind. A message this program can't read is one it
/// has no use for.
pub(super) fn dump<T>(
    request: RouteNetlinkMessage,
    wanted: impl FnMut(RouteNetlinkMessage) -> Option<T>,
) -> io::Result<Vec<T>> {
    ask(request, NLM_F_REQUEST | NLM_F_DUMP, wanted)
}

/// What the kernel answers to a request for one thing.
pub(super) fn one(request: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
    let answer = ask(request, NLM_F_REQUEST, Some)?.pop();
    answer.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn ask<T>(
    request: RouteNetlinkMessage,
    flags: u16,
    mut wanted: impl FnMut(RouteNetlinkMessage) -> Option<T>,
) -> io::Result<Vec<T>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for one in messages(&answer) {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) else { continue };
            let more = message.header.flags & NLM_F_MULTIPART != 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => found.extend(wanted(message)),
                _ => {}
            }
            if !more {
                return Ok(found);
            }
        }
    }
}

/// The messages in what was received at once.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk::<4>()?) as usize;
        let one = rest.get(..length).filter(|one| one.len() >= HEAD)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(one)
    })
}

/// Hears of interfaces that appear, change and go, in the namespace of the thread that made it.
#[derive(Debug)]
pub struct LinkEvents {
    socket: Socket,
}

impl LinkEvents {
    /// # Errors
    /// Those of netlink sockets.
    pub fn listen() -> io::Result<LinkEvents> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, LINK_GROUP))?;
        socket.set_non_blocking(true)?;
        Ok(LinkEvents { socket })
    }

    /// True if something may have changed at one of these interfaces since the last call. Never waits.
    pub fn stirred(&self, ours: impl Fn(u32) -> bool) -> bool {
        let mut stirred = false;
        loop {
            match self.socket.recv_from_full() {
                Ok((told, _)) => stirred |= messages(&told).filter_map(link_of).any(&ours),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return stirred,
                // More happened than the kernel kept for us (ENOBUFS), which it says once; or it can't be heard.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }
}

/// The interface that a message is about.
fn link_of(message: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    // Behind the head, `struct ifinfomsg`: family, padding, type, and then the index.
    let index = u32::from_ne_bytes(*message.get(HEAD + 4..)?.first_chunk()?);
    LINK_MESSAGES.contains(&kind).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, index: u32) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        bytes[..4].copy_from_slice(&32_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[20..24].copy_from_slice(&index.to_ne_bytes());
        bytes
    }

    #[test]
    fn messages_name_their_interface() {
        let all = [message(16, 3), message(20, 4), message(17, 5)].concat();
        assert_eq!(messages(&all).filter_map(link_of).collect::<Vec<_>>(), [3, 5]);
        // Cut anywhere, what is whole before is read and nothing else.
        for cut in 0..all.len() {
            assert_eq!(messages(&all[..cut]).count(), cut / 32);
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn nothing_has_happened_yet() {
        let events = LinkEvents::listen().unwrap();
        assert!(!events.stirred(|index| index == 0x7fff_fff0));
    }
}
