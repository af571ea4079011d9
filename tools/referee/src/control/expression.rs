//! What an expression selects. It is compiled without asking anybody: a name of a host or net in it would have libpcap ask
//! the DNS, and the control thread wait for the answer.
//!
//! Control thread, and those of the API. Knows the words of pcap-filter(7); whether they make sense is libpcap's to say.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::filter::{FilterError, Selection};

use super::demands::{Reason, Refusal, refuse};

/// Words that are no names; with those of fields and values, such as tcp-syn or icmptype.
const WORDS: &str = "and or not host net mask port portrange src dst ether link ip ip6 arp rarp tcp udp icmp icmp6 igmp \
    igrp pim vrrp carp sctp ah esp proto protochain broadcast multicast less greater len length vlan mpls pppoed pppoes \
    geneve vxlan inbound outbound ifindex ppp slip fddi tr wlan type subtype dir direction addr1 addr2 addr3 addr4 ra ta \
    address1 address2 address3 address4 llc iso clnp esis isis stp ipx netbeui atalk aarp decnet lat moprc mopdl sca rarp \
    on rnr rset reason action rulenum ruleset srnr subrulenum random byte radio lane oam oamf4 metac bcc metaconnect l1 \
    l2 iih lsp csnp psnp snp";
const FIELDS: [&str; 5] = ["tcp-", "icmp-", "icmp6-", "tcpflags", "icmp"];
/// Longest expression, bytes.
const EXPRESSION: usize = 4096;

/// What an expression selects of packets of these link types (LINKTYPE_ numbers). Asks no DNS.
///
/// # Errors
/// It can't be had, in libpcap's words.
pub fn selection(expression: &str, links: &[u16]) -> Result<Selection, Refusal> {
    if expression.len() > EXPRESSION {
        return refuse(Reason::Limit, "the expression is too long", "name nets instead of hosts");
    }
    if let Err(word) = without_names(expression) {
        let what = format!("`{word}` is no word of pcap-filter's, and names of hosts are not looked up here");
        return refuse(Reason::Expression, what, "give addresses; `getent hosts NAME` shows a host's");
    }
    Selection::new(expression, links).or_else(|error| {
        let help = match &error {
            error if error.is_library() => "install it: apt-get install libpcap0.8",
            FilterError::Compile(_) => {
                "pcap-filter(7) has the syntax, the one of tcpdump; quote an expression of several words"
            }
            _ => "name hosts, nets or ports instead",
        };
        refuse(Reason::Expression, error.to_string(), help)
    })
}

/// # Errors
/// The word that may be a name.
fn without_names(expression: &str) -> Result<(), String> {
    let mut before = "";
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || "._:/-\\".contains(c)));
    for word in words.filter(|word| !word.is_empty()) {
        // Services and protocols are named in files of this host.
        let named_here = matches!(before, "port" | "portrange" | "proto" | "protochain");
        if !(named_here || is_number(word) || is_address(word) || is_known(word)) {
            return Err(word.to_owned());
        }
        before = word;
    }
    // What else there is can be part of no word that libpcap takes for a name.
    match expression.chars().find(|c| !c.is_ascii()) {
        Some(other) => Err(other.to_string()),
        None => Ok(()),
    }
}

fn is_known(word: &str) -> bool {
    WORDS.split_whitespace().any(|known| known == word)
        || FIELDS.iter().any(|field| word.starts_with(field) && !word.contains(['.', ':', '/', '\\']))
}

/// 80, 0x1fff, 1-1023, and what is between brackets: 2:2, 12-1.
fn is_number(word: &str) -> bool {
    word.split([':', '-', '/']).all(|part| {
        let hex = part.strip_prefix("0x").filter(|hex| !hex.is_empty());
        match hex {
            Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
            None => part.bytes().all(|b| b.is_ascii_digit()),
        }
    })
}

fn is_address(word: &str) -> bool {
    let (address, bits) = word.split_once('/').unwrap_or((word, "0"));
    let parts = |separator: char, number: std::ops::RangeInclusive<usize>, digits: usize| {
        number.contains(&word.split(separator).count())
            && word
                .split(separator)
                .all(|part| (1..=digits).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let short_net = (1..=4).contains(&address.split('.').count())
        && address.split('.').all(|part| part.parse::<u8>().is_ok());
    let ip = short_net || address.parse::<Ipv4Addr>().is_ok() || address.parse::<Ipv6Addr>().is_ok();
    (ip && bits.parse::<u8>().is_ok()) || parts(':', 6..=6, 2) || parts('-', 6..=6, 2) || parts('.', 3..=3, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_hosts_and_nets_are_names() {
        for fine in [
            "",
            "host 10.0.0.1 and port 8080",
            "host 10.0.0.1 or 10.0.0.2 and not (port http or port 53)",
            "net 10.0.0.0/8 or net 10.1 or src net 192.168.1.0 mask 255.255.255.0",
            "host fe80::1 or net 2001:db8::/32 or host ::ffff:10.0.0.1",
            "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 && !arp",
            "ip[6:2] & 0x1fff != 0 or ip[0]-4 > 2 or len <= 100",
            "ether host aa:bb:cc:dd:ee:ff or ether src aa-bb-cc-dd-ee-ff or ether dst aabb.ccdd.eeff",
            "ip proto \\icmp or ether proto 0x88cc or vlan 5 or portrange 1-1023",
            "icmp[icmptype] = icmp-unreach or icmp6[icmp6type] == 2",
        ] {
            assert_eq!(without_names(fine), Ok(()), "{fine}");
        }
        for (wrong, name) in [
            ("host example.com", "example.com"),
            ("host 10.0.0.1 or www", "www"),
            ("src 3com.com", "3com.com"),
            ("net intranet and port 80", "intranet"),
            ("gateway router", "gateway"),
            ("host \\tcp", "\\tcp"),
            ("host tcp-x.example.com", "tcp-x.example.com"),
            ("host cafe.de", "cafe.de"),
            ("host bücher", "b"),
            ("port 80 or http", "http"),
        ] {
            assert_eq!(without_names(wrong), Err(name.to_owned()), "{wrong}");
        }
    }
}
