//! Any bytes as a PROXY header: what is read is within the bytes, and needs all of them and no more.

use std::net::SocketAddr;

use crate::server::accept::proxy_protocol::{Origin, parse};

/// The longest header there is: of version 2, with all that may follow its addresses.
const LONGEST: usize = 16 + 4096;
/// The longest of version 1.
const LONGEST_LINE: usize = 107;

/// Checks one input.
pub fn check(data: &[u8]) {
    let whole = parse(data);
    // A header is waited for only as long as it can become one.
    assert!(whole != Ok(None) || data.len() < LONGEST, "it would be read for ever");
    if let Ok(Some((origin, length))) = whole {
        assert!((1..=data.len().min(LONGEST)).contains(&length), "beyond what was read");
        let header = &data[..length];
        if header.starts_with(b"PROXY ") {
            assert!(length <= LONGEST_LINE && header.ends_with(b"\r\n"));
        }
        assert_eq!(parse(header), Ok(Some((origin, length))), "what follows it had a say");
        for end in 0..length {
            assert_eq!(parse(&data[..end]), Ok(None), "a part of it is a header, or none");
        }
        if let Origin::Client(client) = origin {
            for written in [line(client), binary(client)] {
                assert_eq!(parse(&written), Ok(Some((origin, written.len()))), "not its own header");
            }
        }
    }
    // What is refused stays refused, whatever comes.
    let refused = (0..data.len()).find(|end| parse(&data[..*end]).is_err());
    assert!(refused.is_none() || whole.is_err(), "more bytes mended it");
}

/// A header of version 1.
fn line(client: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (address, port) = (client.ip(), client.port());
    format!("PROXY {family} {address} {address} {port} 443\r\n").into_bytes()
}

/// A header of version 2.
fn binary(client: SocketAddr) -> Vec<u8> {
    let (family, address) = match client.ip() {
        std::net::IpAddr::V4(address) => (0x11, address.octets().to_vec()),
        std::net::IpAddr::V6(address) => (0x21, address.octets().to_vec()),
    };
    let rest = [&address[..], &address, &client.port().to_be_bytes(), &443_u16.to_be_bytes()].concat();
    let length = u16::try_from(rest.len()).expect("some bytes").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x21, family], &length, &rest].concat()
}
