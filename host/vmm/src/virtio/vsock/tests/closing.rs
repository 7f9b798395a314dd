//! How each side ends its half, or all.

use super::*;

#[test]
fn the_end_of_the_clients_stream_is_a_shutdown_after_the_data() {
    let (mut guest, mut client) = Guest::connected();
    client.write_all(b"last").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    guest.event(false);
    assert_eq!(guest.receive().unwrap().1, b"last");
    let (header, _) = guest.receive().unwrap();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, SHUTDOWN_SEND));
    assert!(guest.receive().is_none());
    // The other half still works.
    guest.send(guest.header(op::RW), b"answer");
    let mut bytes = [0; 6];
    client.read_exact(&mut bytes).unwrap();
    // The guest closes.
    guest.send(Header { flags: SHUTDOWN_BOTH, ..guest.header(op::SHUTDOWN) }, &[]);
    assert_eq!(guest.receive().unwrap().0.op, op::RST);
    assert!(is_closed(&mut client));
    assert_eq!(guest.muxer.connections(), 0);
}

#[test]
fn the_guests_half_close_reaches_the_client_after_the_data() {
    let (mut guest, mut client) = Guest::connected();
    guest.send(guest.header(op::RW), b"data");
    guest.send(Header { flags: SHUTDOWN_SEND, ..guest.header(op::SHUTDOWN) }, &[]);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"data");
    client.write_all(b"still here").unwrap();
    guest.event(false);
    assert_eq!(guest.receive().unwrap().1, b"still here");
    // Data after its own end breaks the protocol.
    guest.send(guest.header(op::RW), b"more");
    assert_eq!(guest.receive().unwrap().0.op, op::RST);
}

#[test]
fn a_guest_that_stops_receiving_gives_the_client_a_broken_pipe() {
    let (mut guest, mut client) = Guest::connected();
    guest.send(Header { flags: SHUTDOWN_RECEIVE, ..guest.header(op::SHUTDOWN) }, &[]);
    assert_eq!(client.write_all(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_closed_client_is_told_to_the_guest_once_its_data_is_through() {
    let (mut guest, mut client) = Guest::connected();
    client.write_all(b"bye").unwrap();
    drop(client);
    guest.event(true);
    assert_eq!(guest.receive().unwrap().1, b"bye");
    let (header, _) = guest.receive().unwrap();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, SHUTDOWN_BOTH));
    assert!(guest.receive().is_none());
    // What the guest still sends is swallowed, and credited so that it does not stall.
    guest.send(guest.header(op::RW), &vec![1; 64 * 1024]);
    assert_eq!(guest.receive().unwrap().0.op, op::CREDIT_UPDATE);
    guest.send_op(op::RST);
    assert_eq!(guest.muxer.connections(), 0);
    assert!(guest.receive().is_none());
}

#[test]
fn what_was_sent_before_a_close_reaches_a_slow_client() {
    let (mut guest, mut client) = Guest::connected();
    let piece = vec![7; 64 * 1024];
    for _ in 0..4 {
        guest.send(guest.header(op::RW), &piece);
    }
    guest.send(Header { flags: SHUTDOWN_BOTH, ..guest.header(op::SHUTDOWN) }, &[]);
    let mut received = 0;
    let mut bytes = vec![0; 1 << 16];
    loop {
        let count = client.read(&mut bytes).unwrap();
        if count == 0 {
            break;
        }
        received += count;
        guest.event(false);
    }
    assert_eq!(received, 4 * piece.len());
    assert_eq!(guest.muxer.connections(), 0);
}
