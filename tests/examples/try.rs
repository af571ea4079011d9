fn main() {
    let rules = tests::shipped_rules();
    for path in std::env::args().skip(1) {
        let source = dataplane::source::file::FileSource::open(std::path::Path::new(&path)).unwrap();
        let r = tests::replay(source, &dataplane::config::WorkerConfig::small(), rules.clone());
        println!("{path}: {} packets {} rows", r.account.received, r.rows.len());
        for row in &r.rows { if !row.findings.is_empty() { println!("  {} {}:{} {}:{} {:?}", row.flow.proto, row.flow.src,row.flow.sport,row.flow.dst,row.flow.dport,row.findings); } }
        for i in &r.incidents { println!("  ** {}", serde_json::to_string(i).unwrap()); }
    }
}
