//! Real sockets through the relay on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tandem_wan::{Direction, LinkConfig, Mapping, PathConfig, Relay};

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}

fn relay_to(target: SocketAddr, config: PathConfig) -> (Relay, SocketAddr) {
    let listen = "127.0.0.1:0".parse().unwrap();
    let relay = Relay::start(vec![Mapping { listen, target }], config, 1).unwrap();
    let addr = relay.listen_addrs()[0];
    (relay, addr)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr, Instant) {
    let mut buffer = [0; 2048];
    let (size, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..size].to_vec(), from, Instant::now())
}

#[test]
fn delays_both_ways_and_keeps_clients_apart() {
    let server = socket();
    let config = PathConfig { there: LinkConfig::delay(80.0), back: LinkConfig::delay(30.0) };
    let (relay, listen) = relay_to(server.local_addr().unwrap(), config);
    let (one, two) = (socket(), socket());

    let sent = Instant::now();
    one.send_to(b"one", listen).unwrap();
    let (bytes, one_seen_as, at) = receive(&server);
    assert_eq!(bytes, b"one");
    // Never early; late only by what a busy machine takes.
    let there = at - sent;
    assert!(there >= Duration::from_millis(80) && there < Duration::from_millis(120), "{there:?}");

    two.send_to(b"two", listen).unwrap();
    let (_, two_seen_as, _) = receive(&server);
    assert_ne!(one_seen_as, two_seen_as);

    let sent = Instant::now();
    server.send_to(b"to one", one_seen_as).unwrap();
    server.send_to(b"to two", two_seen_as).unwrap();
    let (bytes, from, at) = receive(&one);
    assert_eq!((bytes.as_slice(), from), (b"to one".as_slice(), listen));
    let back = at - sent;
    assert!(back >= Duration::from_millis(30) && back < Duration::from_millis(70), "{back:?}");
    assert_eq!(receive(&two).0, b"to two");

    let stats = relay.stop();
    assert_eq!(stats.mappings[0].there.delivered, 2);
    assert_eq!(stats.mappings[0].back.delivered, 2);
    assert_eq!(stats.datagrams(), 4);
    assert_eq!(stats.mappings[0].clients, 2);
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let server = socket();
    let config = PathConfig::symmetric(LinkConfig::delay(20.0));
    let (relay, listen) = relay_to(server.local_addr().unwrap(), config);
    let client = socket();
    for i in 0..150u32 {
        client.send_to(&i.to_be_bytes(), listen).unwrap();
    }
    for i in 0..150u32 {
        assert_eq!(receive(&server).0, i.to_be_bytes());
    }
    assert_eq!(relay.stop().mappings[0].there.delivered_bytes, 600);
}

#[test]
fn loss_is_counted_and_changes_while_running() {
    let server = socket();
    let lossy = LinkConfig { loss: 1.0, ..LinkConfig::default() };
    let (relay, listen) = relay_to(server.local_addr().unwrap(), PathConfig::symmetric(lossy));
    let client = socket();
    client.send_to(b"lost", listen).unwrap();
    let deadline = Instant::now() + Duration::from_secs(3);
    while relay.stats().mappings[0].there.dropped_loss == 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    relay.set_config(PathConfig::default()).unwrap();
    client.send_to(b"kept", listen).unwrap();
    assert_eq!(receive(&server).0, b"kept");

    relay.set_up(Direction::There, false);
    client.send_to(b"cut", listen).unwrap();
    while relay.stats().mappings[0].there.dropped_down == 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn rebinding_changes_the_port_the_target_sees() {
    let server = socket();
    let (relay, listen) = relay_to(server.local_addr().unwrap(), PathConfig::default());
    let client = socket();
    client.send_to(b"a", listen).unwrap();
    let before = receive(&server).1;
    relay.rebind();
    let deadline = Instant::now() + Duration::from_secs(3);
    let after = loop {
        client.send_to(b"b", listen).unwrap();
        let seen = receive(&server).1;
        if seen != before {
            break seen;
        }
        assert!(Instant::now() < deadline, "still the old port");
    };
    server.send_to(b"c", after).unwrap();
    assert_eq!(receive(&client).0, b"c");
}

#[test]
fn a_closed_target_port_does_not_stop_the_relay() {
    let gone = socket().local_addr().unwrap();
    let (relay, listen) = relay_to(gone, PathConfig::default());
    let client = socket();
    let deadline = Instant::now() + Duration::from_secs(3);
    while relay.stats().mappings[0].refused + relay.stats().mappings[0].send_errors == 0 {
        client.send_to(b"anyone?", listen).unwrap();
        assert!(Instant::now() < deadline, "the refusal was not counted");
    }
    let server = UdpSocket::bind(gone).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    client.send_to(b"now", listen).unwrap();
    while receive(&server).0 != b"now" {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_busy_address_is_named() {
    let taken = socket();
    let listen = taken.local_addr().unwrap();
    let mapping = Mapping { listen, target: listen };
    let error = Relay::start(vec![mapping], PathConfig::default(), 1).err().unwrap();
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}
