//! What a guest or client may not do, and what each gets for it.

use super::*;

#[test]
fn packets_of_no_connection_are_reset_and_resets_are_not_answered() {
    let mut guest = Guest::new();
    guest.next_port = Some(77);
    guest.send_op(op::RW);
    let (header, _) = guest.receive().unwrap();
    assert_eq!((header.op, header.src_port, header.dst_port), (op::RST, 77, GUEST_PORT));
    guest.send_op(op::RST);
    // A guest's own request: nothing listens on the host.
    guest.send_op(op::REQUEST);
    assert_eq!(guest.receive().unwrap().0.op, op::RST);
    assert!(guest.receive().is_none());
    // Not from this guest, or not to the host: nobody to answer.
    guest.send(Header { src_cid: 99, ..guest.header(op::RW) }, &[]);
    guest.send(Header { dst_cid: 99, ..guest.header(op::RW) }, &[]);
    assert!(guest.receive().is_none());
}

#[test]
fn a_packet_shorter_than_it_says_ends_its_connection() {
    let (mut guest, mut client) = Guest::connected();
    let header = Header { len: 100, ..guest.header(op::RW) };
    let payload = buffer(&guest.ram, &[(TX, 99)]);
    guest.muxer.on_packet(&header, payload, Instant::now());
    assert_eq!(guest.receive().unwrap().0.op, op::RST);
    assert!(is_closed(&mut client));
}

#[test]
fn who_waits_too_long_is_let_go() {
    let mut guest = Guest::new();
    let mut silent = guest.client();
    let mut waiting = guest.client();
    waiting.write_all(format!("CONNECT {GUEST_PORT}\n").as_bytes()).unwrap();
    guest.event(false);
    guest.receive().unwrap();
    let next = guest.muxer.expire(Instant::now()).unwrap();
    assert_eq!(guest.muxer.connections(), 2);
    assert!(guest.muxer.expire(next + TIMEOUT).is_none());
    assert_eq!(guest.muxer.connections(), 0);
    assert!(is_closed(&mut silent) && is_closed(&mut waiting));
    // Only the one that the guest knows of is reset.
    assert_eq!(guest.receive().unwrap().0.op, op::RST);
    assert!(guest.receive().is_none());
}

#[test]
fn connections_take_turns() {
    let mut guest = Guest::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = guest.client();
        client.write_all(format!("CONNECT {GUEST_PORT}\n").as_bytes()).unwrap();
        guest.event(false);
        assert_eq!(guest.receive().unwrap().0.op, op::REQUEST);
        guest.send_op(op::RESPONSE);
        // Nothing to read yet; it leaves the line.
        assert!(guest.receive().is_none());
        clients.push((guest.port(), client));
    }
    for (port, client) in &mut clients {
        client.write_all(&[1; 3000]).unwrap();
        guest.muxer.on_host_event(*port, true, true, false, Instant::now());
    }
    let mut ports = Vec::new();
    while let Some((header, payload)) = guest.receive_into(1000) {
        assert_eq!(payload.len(), 1000);
        ports.push(header.src_port);
    }
    assert_eq!(ports.len(), 9);
    for turn in ports.chunks(3) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        turn.dedup();
        assert_eq!(turn.len(), 3, "{ports:?}");
    }
}

#[test]
fn clients_beyond_the_most_are_turned_away() {
    let mut guest = Guest::new();
    let clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| guest.client()).collect();
    let mut one_more = guest.client();
    assert!(is_closed(&mut one_more));
    assert_eq!(guest.muxer.connections(), clients.len());
}

#[test]
fn resets_that_nobody_fetches_hold_up_the_guest() {
    let mut guest = Guest::new();
    guest.next_port = Some(77);
    for _ in 0..REPLIES_MAX {
        assert!(!guest.muxer.is_backed_up());
        guest.send_op(op::RW);
    }
    assert!(guest.muxer.is_backed_up());
    guest.receive().unwrap();
    assert!(!guest.muxer.is_backed_up());
}

proptest! {
    #[test]
    fn no_packet_from_the_guest_does_harm(
        packets in prop::collection::vec(
            (0_u16..9, 0_u32..5, any::<u32>(), any::<u32>(), 0_usize..300, any::<bool>()), 1..60)
    ) {
        let (mut guest, mut client) = Guest::connected();
        client.set_nonblocking(true).unwrap();
        for (op, flags, buf_alloc, fwd_cnt, length, known) in packets {
            let mut header = Header { op, flags, buf_alloc, fwd_cnt, ..guest.header(op) };
            if !known {
                header.dst_port = header.dst_port.wrapping_add(1);
            }
            guest.send(header, &vec![1; length]);
            let _ = client.write(&[2; 100]);
            guest.event(false);
            for _ in 0..5 {
                let _ = guest.receive_into(length);
            }
            let _ = client.read(&mut [0; 1000]);
        }
        prop_assert!(guest.muxer.connections() <= 1);
    }
}
