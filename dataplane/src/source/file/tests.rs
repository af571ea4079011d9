//! Every variant of the formats, every kind of damage, and bytes that are nothing at all.

use std::io::{self, Read, Write};
use std::path::Path;

use proptest::prelude::*;

use super::testfiles::*;
use super::*;
use crate::source::LinkType;

fn open(bytes: &[u8]) -> Result<FileSource, OpenError> {
    FileSource::from_reader("dir/x.pcap", Box::new(io::Cursor::new(bytes.to_vec())))
}

/// A packet as (time, bytes, original length, interface).
type Seen = (Nanos, Vec<u8>, u32, u16);

fn drain(source: &mut FileSource) -> (Vec<Seen>, Vec<usize>) {
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    let mut batch = Batch::new();
    loop {
        match source.poll(&mut batch) {
            Poll::Packets => {
                assert!(!batch.packets.is_empty() && batch.packets.len() <= BATCH);
                sizes.push(batch.packets.len());
                for p in &batch.packets {
                    let bytes = source.bytes(p).to_vec();
                    assert_eq!(bytes.len(), p.cap_len as usize);
                    assert_eq!(p.link, source.interfaces()[usize::from(p.interface)].link);
                    assert!(p.ts <= batch.watermark && p.orig_len >= p.cap_len);
                    seen.push((p.ts, bytes, p.orig_len, p.interface));
                }
                source.release(&mut batch);
            }
            Poll::Idle(_) => unreachable!("a file is never idle"),
            Poll::End => break,
        }
    }
    assert_eq!(source.poll(&mut batch), Poll::End, "the end is the end");
    assert_eq!(source.report().packets, seen.len() as u64);
    (seen, sizes)
}

fn read(bytes: &[u8]) -> (Vec<Seen>, FileSource) {
    let mut source = open(bytes).expect("a capture");
    let seen = drain(&mut source).0;
    (seen, source)
}

/// Reads a file that must be damaged: packets before it, and the damage.
fn damage(bytes: &[u8]) -> (usize, Damage) {
    let (seen, source) = read(bytes);
    let report = source.report();
    assert!(!report.complete);
    let damage = report.damage.expect("damage");
    assert_eq!(damage.packet, seen.len() as u64);
    (seen.len(), damage)
}

/// A reader that gives at most so many bytes a time, and an error at its end if there is one.
struct Pieces {
    bytes: io::Cursor<Vec<u8>>,
    most: usize,
    error: Option<io::ErrorKind>,
}

impl Read for Pieces {
    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        let most = dst.len().min(self.most);
        match self.bytes.read(&mut dst[..most])? {
            0 => self.error.map_or(Ok(0), |kind| Err(kind.into())),
            n => Ok(n),
        }
    }
}

#[test]
fn a_source_moves_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<FileSource>();
}

#[test]
fn pcap_magics_and_byte_orders() {
    for order in [Order::Little, Order::Big] {
        for (magic, unit) in [(MICRO, 1_000), (NANO, 1), (MODIFIED, 1_000)] {
            let mut file = PcapFile::new(order, magic, 96, 0xf400_0000 | 113);
            file.record(5, 7, b"abc").raw(6, 8, 2, 1500, b"de").record(7, 0, b"");
            let (seen, source) = read(&file.bytes);
            let second = 1_000_000_000;
            let wanted = [
                (5 * second + 7 * unit, b"abc".to_vec(), 3, 0),
                (6 * second + 8 * unit, b"de".to_vec(), 1500, 0),
                (7 * second, vec![], 0, 0),
            ];
            assert_eq!(seen, wanted, "{order:?} {magic:#x}");
            let [interface] = source.interfaces() else { panic!("one interface") };
            assert_eq!((interface.link, interface.link_number), (LinkType::LinuxSll, 113));
            assert_eq!((&*interface.name, interface.snap_len), ("x.pcap", 96));
            let report = source.report();
            assert!(report.complete && report.damage.is_none());
            assert_eq!(report.bytes, file.bytes.len() as u64);
        }
    }
}

#[test]
fn pcap_oddities_that_are_no_damage() {
    let mut file = PcapFile::new(Order::Little, MICRO, 2, 9999);
    file.bytes[4] = 9;
    file.raw(u32::MAX, u32::MAX, 4, 1, b"abcd");
    let (seen, source) = read(&file.bytes);
    let ts = u64::from(u32::MAX) * 1_000_000_000 + u64::from(u32::MAX) * 1_000;
    assert_eq!(seen, [(ts, b"abcd".to_vec(), 4, 0)]);
    assert_eq!(source.interfaces()[0].link, LinkType::Other(9999));
    let (seen, source) = read(&PcapFile::new(Order::Big, NANO, 0, 1).bytes);
    assert!(seen.is_empty() && source.report().complete);
}

#[test]
fn a_time_going_backwards_keeps_file_order_and_the_highest_watermark() {
    let mut file = PcapFile::new(Order::Little, NANO, 0, 1);
    file.record(9, 0, b"a").record(3, 0, b"b").record(4, 0, b"c");
    let mut source = open(&file.bytes).unwrap();
    let mut batch = Batch::new();
    assert_eq!(source.poll(&mut batch), Poll::Packets);
    let times: Vec<_> = batch.packets.iter().map(|p| p.ts / 1_000_000_000).collect();
    assert_eq!(times, [9, 3, 4]);
    assert_eq!(batch.watermark, 9_000_000_000);
}

#[test]
fn pcap_damage_names_the_record_and_its_offset() {
    let good = plain_pcap(5, 10);
    let end = good.len() as u64;
    for claim in [MAX_PACKET + 1, 0x7fff_ffff, u32::MAX] {
        let mut bad = PcapFile::new(Order::Little, NANO, 0, 1);
        for _ in 0..5 {
            bad.record(1, 0, &[0; 10]);
        }
        bad.raw(1, 0, claim, claim, b"xx").record(1, 0, b"after");
        let (packets, damage) = damage(&bad.bytes);
        assert_eq!((packets, damage.offset), (5, end));
        let text = format!(
            "record 6 at byte {end} claims {claim} bytes; a packet has at most 262144: file damaged from here on"
        );
        assert_eq!(damage.to_string(), text);
    }
    for cut in 1..26 {
        let whole = plain_pcap(6, 10);
        let (packets, damage) = damage(&whole[..whole.len() - cut]);
        assert_eq!((packets, damage.offset), (5, end), "{cut} bytes cut off");
        assert!(damage.what.contains("is cut"), "{damage}");
    }
    let mut source = open(&good[..good.len() - 1]).unwrap();
    drain(&mut source);
    assert!(source.report().to_string().starts_with("dir/x.pcap: record 5 at byte"), "{}", source.report());
}

#[test]
fn the_largest_packets_fill_batches_as_far_as_the_window_goes() {
    let mut file = PcapFile::new(Order::Little, NANO, 0, 1);
    let large: Vec<Vec<u8>> = (0..5u8).map(|i| vec![i; MAX_PACKET as usize]).collect();
    for data in &large {
        file.record(1, 0, data);
    }
    let mut source = open(&file.bytes).unwrap();
    let (seen, sizes) = drain(&mut source);
    assert_eq!(seen.iter().map(|s| s.1.clone()).collect::<Vec<_>>(), large);
    assert_eq!(sizes, [1; 5]);
}

#[test]
fn batches_do_not_depend_on_how_the_bytes_arrive() {
    let mut file = PcapFile::new(Order::Little, NANO, 0, 1);
    for i in 0..900u32 {
        file.record(i, 0, &vec![i as u8; (i as usize * 7919) % 40_000]);
    }
    let (wanted, sizes) = drain(&mut open(&file.bytes).unwrap());
    assert!(sizes.iter().any(|&n| n < BATCH) && sizes.iter().any(|&n| n > 1));
    for most in [100_000, 4099, 777] {
        let bytes = io::Cursor::new(file.bytes.clone());
        let reader = Pieces { bytes, most, error: None };
        let mut source = FileSource::from_reader("x", Box::new(reader)).unwrap();
        let (seen, cut) = drain(&mut source);
        assert!(seen == wanted, "other packets with reads of {most} bytes");
        assert_eq!(cut, sizes, "other batches with reads of {most} bytes");
    }
    for packed in [gzip(&file.bytes), zstd(&file.bytes), lz4(&file.bytes)] {
        let mut source = open(&packed).unwrap();
        let (seen, cut) = drain(&mut source);
        assert!(seen == wanted && cut == sizes);
        assert_eq!(source.report().bytes, packed.len() as u64);
        assert!(source.report().complete);
    }
}

#[test]
fn a_cut_record_header_is_one_however_the_bytes_arrive() {
    // 17 of the 24 bytes such a header has, and it claims too much.
    let mut file = PcapFile::new(Order::Little, MODIFIED, 0, 1);
    file.raw(1, 0, MAX_PACKET + 1, MAX_PACKET + 1, b"");
    file.bytes.truncate(24 + 17);
    for most in [1, 7, 1000] {
        let reader = Pieces { bytes: io::Cursor::new(file.bytes.clone()), most, error: None };
        let mut source = FileSource::from_reader("x", Box::new(reader)).unwrap();
        drain(&mut source);
        let what = source.report().damage.expect("damage").what;
        assert_eq!(what, "record 1 at byte 24 is cut: 17 of at least 24 bytes are there", "reads of {most}");
    }
}

#[test]
fn a_failing_read_is_damage_after_all_that_came_before() {
    let whole = plain_pcap(100, 50);
    let bytes = io::Cursor::new(whole[..whole.len() - 20].to_vec());
    let reader = Pieces { bytes, most: 1000, error: Some(io::ErrorKind::ConnectionReset) };
    let mut source = FileSource::from_reader("x", Box::new(reader)).unwrap();
    let (seen, sizes) = drain(&mut source);
    assert_eq!((seen.len(), sizes), (99, vec![64, 35]));
    let damage = source.report().damage.unwrap();
    assert_eq!((damage.packet, damage.offset), (99, whole.len() as u64 - 66));
    assert!(damage.what.contains("connection reset"), "{damage}");
}

#[test]
fn pcapng_packets_of_all_kinds_in_both_orders() {
    for order in [Order::Little, Order::Big] {
        let mut file = PcapngFile::new(order);
        file.interface(1, 3, &[(2, b"eth0"), (3, b"the uplink")])
            .interface(101, 0, &[(9, &[9])])
            .packet(0, 1_000, b"abc")
            .packet(1, 2_000_001, b"defgh")
            .obsolete_packet(1, 3_000_002, b"ij")
            .simple_packet(1500, b"klm")
            .simple_packet(2, b"no");
        let (seen, source) = read(&file.bytes);
        let wanted = [
            (1_000_000, b"abc".to_vec(), 3, 0),
            (2_000_001, b"defgh".to_vec(), 5, 1),
            (3_000_002, b"ij".to_vec(), 2, 1),
            (3_000_002, b"klm".to_vec(), 1500, 0),
            (3_000_002, b"no".to_vec(), 2, 0),
        ];
        assert_eq!(seen, wanted, "{order:?}");
        let [first, second] = source.interfaces() else { panic!("two interfaces") };
        assert_eq!((&*first.name, &*first.description, first.snap_len), ("eth0", "the uplink", 3));
        assert_eq!((first.link, second.link), (LinkType::Ethernet, LinkType::Raw));
        assert_eq!(&*second.name, "x.pcap");
        assert!(source.report().complete);
    }
}

#[test]
fn interfaces_are_known_before_the_first_poll() {
    let mut file = PcapngFile::new(Order::Big);
    file.interface(1, 0, &[]).interface(276, 0, &[]).packet(0, 0, b"a");
    assert_eq!(open(&file.bytes).unwrap().interfaces().len(), 2);
}

#[test]
fn pcapng_clocks() {
    let second = 1_000_000_000u64;
    let negative = Order::Little.u64(-3i64 as u64);
    let huge = Order::Little.u64(i64::MAX as u64);
    let lowest = Order::Little.u64(i64::MIN as u64);
    type Case<'a> = (&'a [(u16, &'a [u8])], u64, u64);
    let cases: [Case; 15] = [
        (&[], 5, 5_000),
        (&[(9, &[0])], 5, 5 * second),
        (&[(9, &[3])], 5, 5_000_000),
        (&[(9, &[9])], u64::MAX, u64::MAX),
        (&[(9, &[6])], u64::MAX, u64::MAX),
        (&[(9, &[12])], 7_999, 7),
        (&[(9, &[12])], u64::MAX, u64::MAX / 1_000),
        (&[(9, &[28])], u64::MAX, 1),
        (&[(9, &[127])], u64::MAX, 0),
        (&[(9, &[0x80 | 10])], 1024 + 512, second + second / 2),
        (&[(9, &[0x80 | 64])], u64::MAX, second - 1),
        (&[(9, &[0xff])], u64::MAX, 0),
        (&[(14, &negative)], 5_000_000, 2 * second),
        (&[(14, &lowest)], u64::MAX, 0),
        (&[(14, &huge)], 0, u64::MAX),
    ];
    for (options, ticks, wanted) in cases {
        let mut file = PcapngFile::new(Order::Little);
        file.interface(1, 0, options).packet(0, ticks, b"x");
        assert_eq!(read(&file.bytes).0[0].0, wanted, "{options:?} {ticks}");
    }
    // The offset moves a sum that is exact before it is cut to the range.
    let mut file = PcapngFile::new(Order::Little);
    file.interface(1, 0, &[(9, &[0]), (14, &negative)]).packet(0, 18_446_744_076, b"x").packet(0, 1, b"y");
    let seen = read(&file.bytes).0;
    assert_eq!((seen[0].0, seen[1].0), (18_446_744_073 * second, 0));
}

#[test]
fn sections_restart_numbering_and_may_change_byte_order() {
    let mut file = PcapngFile::new(Order::Little);
    file.interface(1, 0, &[(2, b"a")]).interface(1, 0, &[(2, b"a")]).packet(1, 1, b"1");
    file.section(Order::Big).interface(101, 0, &[(2, b"b"), (9, &[9])]).packet(0, 2, b"2");
    file.section(Order::Little).interface(1, 0, &[(2, b"a")]).packet(0, 3, b"3");
    file.section(Order::Little).interface(1, 0, &[(2, b"a"), (9, &[9])]).packet(0, 4, b"4");
    let (seen, source) = read(&file.bytes);
    let indexes: Vec<_> = seen.iter().map(|s| (s.0, s.3)).collect();
    // Two alike in one section are two; alike in a later section they are the same again.
    assert_eq!(indexes, [(1_000, 1), (2, 2), (3_000, 0), (4, 0)]);
    assert_eq!(source.interfaces().len(), 3);
}

#[test]
fn other_blocks_are_passed_over_whatever_their_size() {
    let mut file = PcapngFile::new(Order::Little);
    file.block(0x0bad_0bad, &[1; 40]).interface(1, 0, &[]);
    for (kind, size) in [(4, 8), (5, 8), (10, 600_000), (0x8000_0001, 0), (0x0bad, 2_000_000)] {
        file.packet(0, 1, &[9; 100]).block(kind, &vec![kind as u8; size]);
    }
    file.packet(0, 1, b"last");
    for most in [usize::MAX, 5003] {
        let reader = Pieces { bytes: io::Cursor::new(file.bytes.clone()), most, error: None };
        let mut source = FileSource::from_reader("x", Box::new(reader)).unwrap();
        let (seen, sizes) = drain(&mut source);
        assert_eq!((seen.len(), seen[5].1.clone()), (6, b"last".to_vec()));
        assert_eq!(sizes, [3, 2, 1]);
        assert!(source.report().complete, "{}", source.report());
    }
    let at = file.bytes.len();
    file.block(0x0bad, &vec![0; 1_000_000]);
    let (packets, damage) = damage(&file.bytes[..file.bytes.len() - 1]);
    assert_eq!((packets, damage.offset), (6, at as u64), "{damage}");
}

#[test]
fn a_length_without_its_padding_is_read() {
    let mut file = PcapngFile::new(Order::Little);
    file.interface(1, 0, &[]);
    let at = file.bytes.len();
    file.packet(0, 1, b"x");
    let end = file.bytes.len();
    file.bytes[at + 4..at + 8].copy_from_slice(&33u32.to_le_bytes());
    file.bytes[end - 4..].copy_from_slice(&33u32.to_le_bytes());
    file.packet(0, 2, b"yy");
    let (seen, source) = read(&file.bytes);
    assert_eq!(seen.len(), 2);
    assert!(source.report().complete);
}

#[test]
fn broken_interface_options_do_not_cost_the_packets() {
    let mut file = PcapngFile::new(Order::Little);
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0];
    body.extend([9, 0, 1, 0, 9, 0, 0, 0, 2, 0, 0xff, 0xff, b'e', b't', b'h', b'0']);
    file.block(1, &body).packet(0, 77, b"x");
    let (seen, source) = read(&file.bytes);
    assert_eq!(seen[0].0, 77, "what came before the damage counts");
    assert!(source.interfaces()[0].description.contains("options are damaged"));
}

#[test]
fn pcapng_damage_of_every_kind() {
    let start = || {
        let mut file = PcapngFile::new(Order::Little);
        file.interface(1, 0, &[]).packet(0, 1, b"1").packet(0, 2, b"2");
        file
    };
    let check = |words: &str, build: &dyn Fn(&mut PcapngFile)| {
        let mut file = start();
        let at = file.bytes.len() as u64;
        build(&mut file);
        file.packet(0, 3, b"after");
        let (packets, damage) = damage(&file.bytes);
        assert_eq!((packets, damage.offset), (2, at), "{words}");
        assert!(damage.what.contains(words), "{words}: {damage}");
    };
    for claimed in [0u32, 8, 11, (16 << 20) + 1, u32::MAX] {
        check(&format!("block length of {claimed},"), &|file| {
            let at = file.bytes.len() + 4;
            file.block(5, &[0; 20]);
            file.bytes[at..at + 4].copy_from_slice(&claimed.to_le_bytes());
        });
    }
    check("but ends with 4", &|file| {
        file.block(5, &[0; 20]);
        let end = file.bytes.len();
        file.bytes[end - 4..].copy_from_slice(&4u32.to_le_bytes());
    });
    check("names interface 99, but the section has described 1", &|file| _ = file.packet(99, 0, b"x"));
    check("names interface 7,", &|file| _ = file.obsolete_packet(7, 0, b"x"));
    check("room for 4 in the block", &|file| _ = file.packet_claiming(0, 1, 5, b"abc"));
    check("claims 262145 bytes", &|file| _ = file.packet_claiming(0, 1, 262_145, b"abc"));
    check("room for 4 in the block", &|file| _ = file.simple_packet(5, b"abc"));
    check("has 28 bytes, too few", &|file| _ = file.block(6, &[0; 16]));
    check("has 12 bytes, too few", &|file| _ = file.block(3, &[]));
    check("has 16 bytes, too few", &|file| _ = file.block(1, &[0; 4]));
    check("unknown byte order", &|file| _ = file.block(0x0a0d_0d0a, &[1; 16]));
    check("version 2", &|file| {
        let at = file.bytes.len() + 12;
        file.section(Order::Little);
        file.bytes[at] = 2;
    });
    check("block length of 600012", &|file| _ = file.block(6, &[0; 600_000]));
}

#[test]
fn a_packet_in_a_section_without_interfaces_is_damage() {
    let mut file = PcapngFile::new(Order::Little);
    file.packet(0, 0, b"x");
    assert_eq!(damage(&file.bytes).1.offset, 28);
    let mut file = PcapngFile::new(Order::Little);
    file.interface(1, 0, &[]).packet(0, 0, b"x").section(Order::Big);
    let at = file.bytes.len() as u64;
    file.simple_packet(1, b"x");
    assert_eq!(damage(&file.bytes).1.offset, at);
}

#[test]
fn interfaces_are_bounded() {
    let mut file = PcapngFile::new(Order::Little);
    for i in 0..4097u32 {
        file.interface(1, i, &[]);
    }
    file.packet(0, 0, b"x");
    let (packets, damage) = damage(&file.bytes);
    assert_eq!((packets, damage.offset), (0, 28 + 4096 * 20));
}

#[test]
fn several_members_and_frames() {
    let file = plain_pcap(500, 300);
    for pack in [gzip, zstd, lz4] {
        let packed: Vec<u8> = file.chunks(50_001).flat_map(pack).collect();
        let (seen, source) = read(&packed);
        assert_eq!(seen.len(), 500);
        assert!(source.report().complete, "{}", source.report());
    }
    let skippable = [0x55, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    for pack in [zstd, lz4] {
        let packed = [pack(&file[..1000]), skippable.to_vec(), pack(&file[1000..])].concat();
        let (seen, source) = read(&packed);
        assert!(seen.len() == 500 && source.report().complete, "{}", source.report());
    }
}

#[test]
fn gzip_header_fields_are_passed_over() {
    let file = plain_pcap(3, 8);
    let mut out = flate2::GzBuilder::new()
        .filename("x")
        .comment("y")
        .extra(vec![1; 300])
        .write(Vec::new(), flate2::Compression::fast());
    out.write_all(&file).unwrap();
    assert_eq!(read(&out.finish().unwrap()).0.len(), 3);
}

#[test]
fn one_zstd_frame_of_flushed_blocks_without_an_end_gives_every_flushed_packet() {
    let header = plain_pcap(0, 0);
    let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    out.write_all(&header).unwrap();
    let mut flushed = Vec::new();
    let record = plain_pcap(1, 700)[24..].to_vec();
    for i in 1..=400 {
        out.write_all(&record).unwrap();
        if i % 50 == 0 {
            out.flush().unwrap();
            flushed.push((i, out.get_ref().len()));
        }
    }
    let packed = out.get_ref().clone();
    for (packets, end) in flushed {
        for after in [0, 1, 2] {
            let Some(cut) = packed.get(..end + after) else { continue };
            let (seen, damage) = damage(cut);
            assert_eq!(seen, packets);
            assert_eq!(damage.offset, 24 + packets as u64 * 716);
            assert!(damage.what.contains("the zstd data ends in the middle"), "{damage}");
        }
    }
}

/// Bytes that compress, but not to nothing.
fn varied_pcap(count: u32) -> Vec<u8> {
    let mut file = PcapFile::new(Order::Little, NANO, 0, 1);
    let mut state = 1u32;
    for i in 0..count {
        let data: Vec<u8> = (0..200)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 28) as u8
            })
            .collect();
        file.record(i, 0, &data);
    }
    file.bytes
}

#[test]
fn a_cut_compressed_file_gives_what_can_be_had() {
    let file = varied_pcap(5_000);
    for (pack, words) in [(gzip as fn(&[u8]) -> Vec<u8>, "gzip"), (zstd, "zstd"), (lz4, "lz4")] {
        let packed = pack(&file);
        let (packets, damage) = damage(&packed[..packed.len() / 2]);
        // The block that is cut is lost, no more: 128 KiB at most for zstd, here 64 KiB for lz4.
        assert!(packets > 1_200, "{words}: {packets}");
        assert!(damage.what.contains(&format!("the {words} data ends in the middle")), "{damage}");
        assert_eq!(damage.offset, 24 + packets as u64 * 216);
    }
    // Even the last byte of the trailer is missed.
    for pack in [gzip, zstd, lz4] {
        let packed = pack(&file);
        let (seen, source) = read(&packed[..packed.len() - 1]);
        assert_eq!(seen.len(), 5_000);
        assert!(source.report().damage.is_some());
    }
}

#[test]
fn a_corrupt_compressed_file_gives_what_came_before() {
    let file = varied_pcap(5_000);
    for (pack, words) in [(gzip as fn(&[u8]) -> Vec<u8>, "gzip"), (zstd, "zstd"), (lz4, "lz4")] {
        let mut packed = pack(&file);
        let middle = packed.len() * 3 / 4;
        packed[middle..middle + 64].fill(0xff);
        let (seen, source) = read(&packed);
        let damage = source.report().damage.expect(words);
        assert!(seen.len() > 1_200, "{words}: {}", seen.len());
        assert_eq!(damage.packet, seen.len() as u64);
    }
    for (pack, words) in [(gzip as fn(&[u8]) -> Vec<u8>, "gzip"), (zstd, "zstd"), (lz4, "lz4")] {
        let (seen, source) = read(&[pack(&file), b"trailing".to_vec()].concat());
        assert_eq!(seen.len(), 5_000);
        assert!(source.report().damage.unwrap().what.contains(words));
    }
    let mut packed = gzip(&file);
    let end = packed.len();
    packed[end - 8] ^= 1;
    let (seen, source) = read(&packed);
    assert_eq!(seen.len(), 5_000);
    assert!(source.report().damage.unwrap().what.contains("checksum"));
}

#[test]
fn what_is_no_capture_does_not_open() {
    let check = |bytes: &[u8], words: &str| {
        let error = open(bytes).err().expect("not a capture").to_string();
        assert!(error.starts_with("dir/x.pcap: ") && error.contains(words), "{error}");
    };
    check(b"", "is empty");
    check(&gzip(b""), "is empty");
    check(b"\xd4\xc3", "starts with bytes d4 c3,");
    check(b"GET / HTTP/1.1\r\n", "starts with bytes 47 45 54 20,");
    check(b"BZh91AY", "bzip2");
    check(&gzip(&gzip(&plain_pcap(1, 1))), "compressed twice");
    check(&plain_pcap(0, 0)[..23], "the pcap file header is cut: 23 of 24 bytes");
    check(&PcapngFile::new(Order::Big).bytes[..13], "the pcapng file header is cut: 13 of 28 bytes");
    check(&[&PcapngFile::new(Order::Big).bytes[..7], &[40], &[0; 30]].concat(), "unusable");
    let packed = gzip(&plain_pcap(1, 1));
    check(&packed[..12], "the gzip data ends in the middle");
    let mut newer = PcapngFile::new(Order::Little);
    newer.bytes[12] = 2;
    check(&newer.bytes, "version 2");
    let mut lying = PcapngFile::new(Order::Little);
    lying.bytes[24] = 32;
    check(&lying.bytes, "ends with 32");
}

#[test]
fn paths() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.pcap");
    assert!(matches!(FileSource::open(&missing), Err(OpenError::NotFound { .. })));
    assert!(matches!(FileSource::open(dir.path()), Err(OpenError::Directory { .. })));
    let file = dir.path().join("a.pcap.gz");
    let packed = gzip(&plain_pcap(10, 10));
    std::fs::write(&file, &packed).unwrap();
    let mut source = FileSource::open(Path::new(&file)).unwrap();
    drain(&mut source);
    assert_eq!(source.progress(), (packed.len() as u64, Some(packed.len() as u64)));
    assert_eq!(source.interfaces()[0].name, "a.pcap.gz");
    assert_eq!(source.report().name, file.display().to_string());
}

/// Valid files of all kinds, for mutation.
fn seeds() -> Vec<Vec<u8>> {
    let mut ng = PcapngFile::new(Order::Big);
    ng.interface(1, 0, &[(2, b"e"), (9, &[9]), (14, &[0; 8])]).packet(0, 5, b"abcd").simple_packet(3, b"abc");
    ng.section(Order::Little).interface(101, 2, &[]).obsolete_packet(0, 1, b"xy").block(5, &[0; 12]);
    ng.packet(0, 6, &[0; 90]);
    let mut seeds = vec![plain_pcap(9, 20), ng.bytes];
    for pack in [gzip, zstd, lz4] {
        seeds.extend([pack(&seeds[0]), pack(&seeds[1])]);
    }
    seeds
}

fn survives(bytes: &[u8]) {
    if let Ok(mut source) = open(bytes) {
        drain(&mut source);
        let report = source.report();
        assert_ne!(report.complete, report.damage.is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_never_panic(magic in 0usize..8, bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        survives(&bytes);
        let seed = &seeds()[magic];
        let mut bytes = bytes;
        for (to, from) in bytes.iter_mut().zip(&seed[..24.min(seed.len())]) {
            *to = *from;
        }
        survives(&bytes);
    }

    #[test]
    fn mutated_files_never_panic(
        seed in 0usize..8,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = seeds()[seed].clone();
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        survives(&bytes);
        survives(&bytes[..cut.index(bytes.len())]);
    }
}
