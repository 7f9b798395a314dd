//! The codec, with bytes of all kinds.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::ProtocolError;
use super::decoder::Decoder;
use super::frame::{self, Encoder, Frame, ResetStatus};
use super::header_block::{Deflater, Headers, Inflater, MAX_HEADER_BLOCK};

fn headers(pairs: &[(&str, &str)]) -> Headers {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Headers(pairs.iter().map(|(name, value)| (bytes(name), bytes(value))).collect())
}

#[test]
fn blocks_of_one_stream_are_read_in_their_order() {
    let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
    for number in 0..50 {
        let sent = headers(&[("streamtype", "data"), ("port", "8080"), ("requestid", &number.to_string())]);
        let block = deflater.write(&sent);
        if number > 1 {
            assert!(block.len() < 40, "repetition costs little: {}", block.len());
        }
        assert_eq!(inflater.read(&block).unwrap(), sent);
    }
}

#[test]
fn a_name_is_found_in_any_case_and_a_list_by_its_first_value() {
    let headers = headers(&[("Port", "80\u{0}81"), ("port", "82")]);
    assert_eq!(headers.get("port"), Some("80"));
    assert_eq!(headers.get("streamtype"), None);
}

#[test]
fn a_block_that_inflates_without_end_is_refused() {
    let value = "a".repeat(MAX_HEADER_BLOCK);
    let block = Deflater::new().write(&headers(&[("name", &value)]));
    assert!(block.len() < 1024);
    assert!(matches!(Inflater::new().read(&block), Err(ProtocolError::HeaderBlock(_))));
    let fits = headers(&[("name", &value[..MAX_HEADER_BLOCK - 4 - 8 - 4])]);
    assert_eq!(Inflater::new().read(&Deflater::new().write(&fits)).unwrap(), fits);
}

#[test]
fn a_block_of_stored_bytes_is_read() {
    // zlib's level 0, which some clients use: the dictionary is named and then not used.
    let mut block = vec![0x78, 0x20, 0xe3, 0xc6, 0xa7, 0xc2];
    block.extend_from_slice(&[0, 14, 0, !14, 0xff]);
    block.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 1, b'b']);
    // What a flush writes.
    block.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
    assert_eq!(Inflater::new().read(&block).unwrap(), headers(&[("a", "b")]));
}

fn sixty_five_pairs() -> Headers {
    headers(&[("a", "b"); 65])
}

#[test]
fn a_block_of_too_many_pairs_is_refused() {
    let block = Deflater::new().write(&sixty_five_pairs());
    assert!(matches!(Inflater::new().read(&block), Err(ProtocolError::HeaderBlock(_))));
}

#[test]
fn a_data_frame_comes_in_the_pieces_that_its_bytes_come_in() {
    let mut bytes = BytesMut::new();
    frame::data(5, true, b"abcdef", &mut bytes);
    let mut decoder = Decoder::new();
    let mut first = bytes.split_to(11);
    let piece = |text: &'static [u8], fin| Frame::Data { id: 5, fin, bytes: Bytes::from_static(text) };
    assert_eq!(decoder.next(&mut first).unwrap(), Some(piece(b"abc", false)));
    assert_eq!(decoder.next(&mut first).unwrap(), None);
    assert_eq!(decoder.next(&mut bytes).unwrap(), Some(piece(b"def", true)));
    assert_eq!(decoder.next(&mut bytes).unwrap(), None);
}

fn any_headers() -> impl Strategy<Value = Headers> {
    let text = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    prop::collection::vec((text(), text()), 0..10).prop_map(Headers)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let id = 1..=0x7fff_ffffu32;
    let reset = prop::sample::select(&[1u32, 3, 5][..]);
    prop_oneof![
        (id.clone(), any::<bool>(), any_headers()).prop_map(|(id, fin, headers)| Frame::SynStream { id, fin, headers }),
        (id.clone(), any_headers()).prop_map(|(id, headers)| Frame::SynReply { id, fin: false, headers }),
        (id.clone(), any::<bool>(), any_headers()).prop_map(|(id, fin, headers)| Frame::Headers { id, fin, headers }),
        (id.clone(), reset).prop_map(|(id, status)| Frame::RstStream { id, status }),
        any::<u32>().prop_map(|id| Frame::Ping { id }),
        (id.clone(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (id, any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(id, fin, bytes)| Frame::Data {
            id,
            fin,
            bytes: bytes.into()
        }),
    ]
}

fn encode(frame: &Frame, encoder: &mut Encoder, to: &mut BytesMut) {
    match frame {
        Frame::SynStream { id, fin, headers } => encoder.syn_stream(*id, *fin, headers, to),
        Frame::SynReply { id, headers, .. } => encoder.syn_reply(*id, headers, to),
        Frame::Headers { id, fin, headers } => encoder.headers(*id, *fin, headers, to),
        Frame::RstStream { id, status } => {
            let all = [ResetStatus::ProtocolError, ResetStatus::RefusedStream, ResetStatus::Cancel];
            frame::rst_stream(*id, all[usize::try_from(*status / 2).unwrap()], to);
        }
        Frame::Ping { id } => frame::ping(*id, to),
        Frame::GoAway { last, status } => frame::go_away(*last, *status, to),
        Frame::Data { id, fin, bytes } => frame::data(*id, *fin, bytes, to),
        Frame::Other { .. } => unreachable!(),
    }
}

/// Feeds bytes in pieces of these sizes; joins the pieces of data frames.
fn decode(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, ProtocolError> {
    let (mut decoder, mut buffer, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    let mut sizes = pieces.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        rest = left;
        buffer.extend_from_slice(piece);
        while let Some(frame) = decoder.next(&mut buffer)? {
            match frame {
                Frame::Data { id, fin, bytes } => {
                    // A frame without FIN has no visible end: pieces of one stream are joined whatever their frames.
                    let mut joined = bytes;
                    if let Some(Frame::Data { id: last, fin: false, bytes }) = frames.last()
                        && *last == id
                    {
                        joined = [bytes.as_ref(), joined.as_ref()].concat().into();
                        frames.pop();
                    }
                    frames.push(Frame::Data { id, fin, bytes: joined });
                }
                other => frames.push(other),
            }
        }
        assert!(buffer.len() <= frame::HEAD + frame::MAX_CONTROL);
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written(
        frames in prop::collection::vec(any_frame(), 0..20),
        pieces in prop::collection::vec(1usize..50, 1..10),
    ) {
        let (mut encoder, mut bytes) = (Encoder::new(), BytesMut::new());
        for frame in &frames {
            encode(frame, &mut encoder, &mut bytes);
        }
        prop_assert_eq!(decode(&bytes, &pieces), decode(&bytes, &[usize::MAX]));
        let whole = decode(&bytes, &[usize::MAX]).unwrap();
        // Data frames of one stream, one behind the other, are joined in `whole`.
        if frames.windows(2).all(|pair| !matches!(pair, [Frame::Data { .. }, Frame::Data { .. }])) {
            prop_assert_eq!(whole, frames);
        }
    }

    #[test]
    fn arbitrary_bytes_are_frames_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        pieces in prop::collection::vec(1usize..50, 1..10),
    ) {
        let _ = decode(&bytes, &pieces);
    }

    #[test]
    fn arbitrary_control_frames_are_read_or_refused(
        bodies in prop::collection::vec((0u16..12, any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)), 0..10),
        pieces in prop::collection::vec(1usize..50, 1..10),
    ) {
        let mut bytes = Vec::new();
        for (kind, flags, body) in bodies {
            bytes.extend_from_slice(&[0x80, 3]);
            bytes.extend_from_slice(&kind.to_be_bytes());
            let length = u32::try_from(body.len()).unwrap() | (u32::from(flags) << 24);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&body);
        }
        let _ = decode(&bytes, &pieces);
    }

    #[test]
    fn damaged_header_blocks_are_read_or_refused(
        sent in prop::collection::vec(any_headers(), 1..4),
        at in any::<prop::sample::Index>(),
        damage in 1u8..=255,
    ) {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        for headers in sent {
            let mut block = deflater.write(&headers);
            let at = at.index(block.len());
            block[at] ^= damage;
            if let Ok(read) = inflater.read(&block) {
                prop_assert!(read.0.len() <= 64);
            }
        }
    }
}
