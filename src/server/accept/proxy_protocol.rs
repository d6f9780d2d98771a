//! The PROXY protocol, versions 1 and 2: what a proxy in front says about a connection before anything else is sent on
//! it (haproxy.org, `proxy-protocol.txt`). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the proxy itself (a health check), or from where it cannot tell: the connection's own address counts.
    Unknown,
    /// From this client.
    Client(SocketAddr),
}

/// These bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header: {0}")]
pub struct NoHeader(&'static str);

/// The longest header of version 1, with its line's end.
const LONGEST_LINE: usize = 107;
/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2: the part before the addresses.
const FIXED: usize = 16;
/// The most that may follow it: addresses, and more about the connection that is skipped.
const LONGEST_REST: usize = 4096;

/// Reads a header at the start of `bytes`: where the connection comes from, and how long the header is. `None`: more
/// bytes are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Origin, usize)>, NoHeader> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        parse_binary(bytes)
    } else if begins(b"PROXY ") {
        parse_line(bytes)
    } else {
        Err(NoHeader("it begins with something else"))
    }
}

fn parse_line(bytes: &[u8]) -> Result<Option<(Origin, usize)>, NoHeader> {
    let window = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(NoHeader("its line is too long")) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.ok_or(NoHeader("its line does not end in CR LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| NoHeader("its line is no text"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let origin = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Origin::Unknown,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, target, from, to] => {
            let address = |text: &str| -> Option<IpAddr> {
                if *family == "TCP4" {
                    text.parse().ok().map(IpAddr::V4)
                } else {
                    text.parse().ok().map(IpAddr::V6)
                }
            };
            let bad = NoHeader("its addresses are none");
            address(target).ok_or(bad)?;
            parse_port(to).ok_or(bad)?;
            Origin::Client(SocketAddr::new(address(source).ok_or(bad)?, parse_port(from).ok_or(bad)?))
        }
        _ => return Err(NoHeader("its words are not those of version 1")),
    };
    Ok(Some((origin, end + 1)))
}

fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn parse_binary(bytes: &[u8]) -> Result<Option<(Origin, usize)>, NoHeader> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(NoHeader("its version or command is not known")),
    };
    if length > LONGEST_REST {
        return Err(NoHeader("it is too long"));
    }
    let Some(rest) = rest.get(..length) else { return Ok(None) };
    let short = NoHeader("it is too short for its addresses");
    let origin = match family {
        _ if is_local => Origin::Unknown,
        0x00 => Origin::Unknown,
        0x11 => {
            let ([a, b, c, d, _, _, _, _, high, low, ..], _) = rest.split_first_chunk::<12>().ok_or(short)?;
            let port = u16::from_be_bytes([*high, *low]);
            Origin::Client(SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), port))
        }
        0x21 => {
            let (addresses, _) = rest.split_first_chunk::<36>().ok_or(short)?;
            let (source, ports) = addresses.split_first_chunk::<16>().ok_or(short)?;
            let [.., high, low, _, _] = *ports else { return Err(short) };
            Origin::Client(SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes([high, low])))
        }
        _ => return Err(NoHeader("its addresses are not those of TCP")),
    };
    Ok(Some((origin, FIXED + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    fn client(text: &str) -> Origin {
        Origin::Client(text.parse().unwrap())
    }

    #[test]
    fn reads_both_versions_and_refuses_all_else() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let mut v6 = [0_u8; 36];
        (v6[0], v6[1], v6[15], v6[32], v6[33]) = (0x20, 1, 9, 0x12, 0x34);
        let good: Vec<(Vec<u8>, Origin)> = vec![
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\r\n".to_vec(), client("203.0.113.9:4660")),
            (b"PROXY TCP6 2001:db8::9 ::1 4660 80\r\n".to_vec(), client("[2001:db8::9]:4660")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Unknown),
            (b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n".to_vec(), Origin::Unknown),
            (binary(0x21, 0x11, &v4), client("203.0.113.9:4660")),
            (binary(0x21, 0x11, &[&v4[..], b"\x03\x00\x04tlvs"].concat()), client("203.0.113.9:4660")),
            (binary(0x21, 0x21, &v6), client("[2001::9]:4660")),
            (binary(0x20, 0x00, &[]), Origin::Unknown),
            (binary(0x20, 0x11, &v4), Origin::Unknown),
            (binary(0x21, 0x00, &[1, 2, 3]), Origin::Unknown),
        ];
        for (bytes, origin) in good {
            let with_more = [bytes.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&with_more), Ok(Some((origin, bytes.len()))), "{bytes:?}");
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{end} of {bytes:?}");
            }
        }
        let bad: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4660 80\n".to_vec(),
            b"PROXY  TCP4 203.0.113.9 10.0.0.1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::9 ::1 4660 80\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4660\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 04660 80\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 +46 80\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 66000 80\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.9 10.0.0.1 1 80\r\n".to_vec(),
            [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat(),
            binary(0x22, 0x11, &v4),
            binary(0x11, 0x11, &v4),
            binary(0x21, 0x11, &v4[..8]),
            binary(0x21, 0x21, &v6[..20]),
            binary(0x21, 0x12, &v4),
            binary(0x21, 0x31, &[0; 216]),
            binary(0x21, 0x11, &[0; 5000]),
        ];
        for bytes in bad {
            assert!(parse(&bytes).is_err(), "{bytes:?}");
        }
    }
}
