//! Bytes and credit.

use super::*;

#[test]
fn data_behind_the_connect_line_is_not_lost() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    client.write_all(format!("CONNECT {GUEST_PORT}\nhello").as_bytes()).unwrap();
    guest.event(false);
    assert_eq!(guest.receive().unwrap().0.op, op::REQUEST);
    assert!(guest.receive().is_none(), "no data before the guest accepts");
    guest.send_op(op::RESPONSE);
    let (header, payload) = guest.receive().unwrap();
    assert_eq!((header.op, header.len, payload.as_slice()), (op::RW, 5, &b"hello"[..]));
}

#[test]
fn a_refusal_closes_the_client() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    client.write_all(format!("CONNECT {GUEST_PORT}\n").as_bytes()).unwrap();
    guest.event(false);
    guest.receive().unwrap();
    guest.send_op(op::RST);
    assert!(is_closed(&mut client));
    assert_eq!(guest.muxer.connections(), 0);
    assert!(guest.receive().is_none());
}

#[test]
fn a_client_that_leaves_mid_line_is_forgotten() {
    let mut guest = Guest::new();
    let mut client = guest.client();
    client.write_all(b"CONNE").unwrap();
    guest.event(false);
    assert_eq!(guest.muxer.connections(), 1);
    drop(client);
    guest.event(true);
    assert_eq!(guest.muxer.connections(), 0);
    assert!(guest.receive().is_none());
}

#[test]
fn bytes_go_both_ways() {
    let (mut guest, mut client) = Guest::connected();
    guest.send(guest.header(op::RW), b"from the guest");
    let mut bytes = [0; 14];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"from the guest");
    client.write_all(b"from the host").unwrap();
    guest.event(false);
    assert_eq!(guest.receive_into(5).unwrap().1, b"from ");
    assert_eq!(guest.receive().unwrap().1, b"the host");
    assert!(guest.receive().is_none());
}

#[test]
fn the_guest_never_gets_more_than_its_window() {
    let (mut guest, mut client) = Guest::connected();
    client.set_nonblocking(true).unwrap();
    let mut received = 0;
    let _ = client.write(&vec![1; 1 << 20]);
    guest.event(false);
    while let Some((header, payload)) = guest.receive() {
        if header.op == op::CREDIT_REQUEST {
            continue;
        }
        assert_eq!(header.op, op::RW);
        received += payload.len();
        let _ = client.write(&vec![1; 1 << 20]);
    }
    assert_eq!(received, usize::try_from(WINDOW).unwrap());
    assert!(!guest.muxer.has_packet(), "a stalled connection must not keep us busy");
    guest.fwd_cnt = 1000;
    guest.send_op(op::CREDIT_UPDATE);
    assert_eq!(guest.receive().unwrap().1.len(), 1000);
}

#[test]
fn a_slow_reader_is_buffered_and_credited_as_it_reads() {
    let (mut guest, mut client) = Guest::connected();
    client.set_nonblocking(true).unwrap();
    let piece = vec![7; 64 * 1024];
    let mut sent = 0;
    let mut announced = 0;
    let mut received = 0;
    let mut bytes = vec![0; 1 << 16];
    while sent < 4 << 20 {
        // As much as the window allows, not a byte more.
        if sent - announced + piece.len() <= usize::try_from(BUFFER).unwrap() {
            guest.send(guest.header(op::RW), &piece);
            sent += piece.len();
        } else {
            received += client.read(&mut bytes).unwrap();
            guest.event(false);
        }
        while let Some((header, _)) = guest.receive() {
            assert_eq!(header.op, op::CREDIT_UPDATE);
            announced = usize::try_from(header.fwd_cnt).unwrap();
        }
        assert!(announced <= sent);
    }
    while let Ok(count) = client.read(&mut bytes) {
        received += count;
        guest.event(false);
    }
    assert_eq!(received, sent);
}

#[test]
fn a_guest_that_ignores_its_window_is_reset() {
    let (mut guest, mut client) = Guest::connected();
    let piece = vec![7; 64 * 1024];
    while guest.muxer.connections() == 1 {
        guest.send(guest.header(op::RW), &piece);
    }
    let (header, _) = guest.receive().unwrap();
    assert_eq!((header.op, header.dst_port), (op::RST, GUEST_PORT));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 2 << 20, "{}", rest.len());
}
