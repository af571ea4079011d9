//! Services and clients against each other on the loopback interface, and what the clients call what they meet.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use super::*;
use crate::rng::Rng;

fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn service(role: Role) -> Service {
    Service::start(Endpoint { role, at: free() }).unwrap()
}

#[test]
fn endpoints_are_read_and_mistakes_explained() {
    let endpoint: Endpoint = "queries=10.50.1.10:5432".parse().unwrap();
    assert_eq!((endpoint.role, endpoint.at.port()), (Role::Queries, 5432));
    assert_eq!("pages=[::1]:80".parse::<Endpoint>().unwrap().at, "[::1]:80".parse().unwrap());
    assert!("pages".parse::<Endpoint>().unwrap_err().contains("ROLE=ADDRESS:PORT"));
    assert!("pages=somewhere".parse::<Endpoint>().unwrap_err().contains("ROLE=ADDRESS:PORT"));
    assert!("mail=10.0.0.1:25".parse::<Endpoint>().unwrap_err().contains("no role mail"));
    for (role, name) in Role::ALL {
        assert_eq!(role.to_string(), name);
    }
}

#[test]
fn a_whole_run_is_orderly() {
    let services: Vec<Service> = Role::ALL.iter().map(|(role, _)| service(*role)).collect();
    let targets = services.iter().map(|service| Endpoint { role: service.served().role, at: service.at() });
    let options = Options {
        targets: targets.collect(),
        seconds: 1,
        seed: 1,
        pages: 40,
        uploads: 20,
        sessions: 4,
        streams: 10,
    };
    let talked = talk(&options).unwrap();
    for tally in [talked.pages, talked.sessions, talked.uploads, talked.streams] {
        assert_eq!(tally, Tally { done: tally.done, ..Tally::default() }, "{talked}");
    }
    let served: Vec<Served> = services.iter().map(Service::served).collect();
    assert_eq!(served.iter().map(|s| s.refused).sum::<u64>(), 0);
    assert_eq!(served[0].answers, talked.pages.done);
    assert_eq!(served[2].answers, talked.uploads.done);
}

#[test]
fn transfers_bring_what_was_asked_for() {
    for role in [Role::Pages, Role::Uploads] {
        let service = service(role);
        for bytes in [0, 1, 300_000] {
            assert_eq!(transfers::attempt(role, service.at(), bytes), Outcome::Done, "{role} {bytes}");
        }
        assert_eq!((service.served().connections, service.served().answers), (3, 3));
    }
}

#[test]
fn an_answer_is_as_long_as_was_asked_for() {
    let mut socket = TcpStream::connect(service(Role::Queries).at()).unwrap();
    socket.write_all(b"select 1000\nselect 24\n").unwrap();
    let mut answer = [0; 1024];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [b'.'; 1024]);
    finish(&mut socket).unwrap();
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    for role in [Role::Pages, Role::Queries, Role::Uploads] {
        let service = service(role);
        let mut socket = TcpStream::connect(service.at()).unwrap();
        socket.write_all(b"select 99999999999999999999\n\n").unwrap();
        let mut answer = Vec::new();
        // Closed or reset, but over.
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.is_empty());
        assert_eq!(service.served().answers, 0);
        TcpStream::connect(service.at()).unwrap();
    }
}

#[test]
fn troubles_are_told_apart() {
    // Nobody listens on a port that was just given back.
    let closed = TcpListener::bind(free()).unwrap().local_addr().unwrap();
    assert_eq!(Outcome::of_connect(&connect(closed).unwrap_err()), Outcome::Refused);
    let timeout: io::Error = io::ErrorKind::TimedOut.into();
    assert_eq!(Outcome::of_connect(&timeout), Outcome::NoAnswer);
    assert_eq!(Outcome::of_talk(&timeout), Outcome::Stalled);
    assert_eq!(Outcome::of_talk(&io::ErrorKind::ConnectionReset.into()), Outcome::Reset);
    assert_eq!(Outcome::of_talk(&io::ErrorKind::BrokenPipe.into()), Outcome::Reset);
    assert_eq!(Outcome::of_talk(&io::ErrorKind::UnexpectedEof.into()), Outcome::Failed);
    let mut tally = Tally::default();
    for outcome in [Outcome::Done, Outcome::NoAnswer, Outcome::NoAnswer, Outcome::Reset] {
        tally.count(outcome);
    }
    assert_eq!(tally.to_string(), "1 done, 2 without an answer, 1 reset");
}

#[test]
fn a_run_that_is_over_begins_nothing() {
    let service = service(Role::Pages);
    let tally = transfers::run(Role::Pages, service.at(), 10, Instant::now(), Rng::new(1));
    assert_eq!((tally, service.served().connections), (Tally::default(), 0));
}
