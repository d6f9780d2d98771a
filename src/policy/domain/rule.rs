//! One rule of the allowed domains: `[scheme://]host[:port][/path]`.
//!
//! Owns the grammar and every reason for refusing a rule where it is entered. Names go through the URL standard's own
//! host parser, as the hosts of pages do, so both end in one form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Scheme;
use super::page::{PageHost, Seen};

mod read;

/// Bytes a rule may have.
pub const MAX_RULE: usize = 2048;

/// A valid rule. Remembers how it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainRule {
    text: String,
    scheme: Option<Scheme>,
    host: RuleHost,
    port: Option<u16>,
    path: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum RuleHost {
    /// This name alone: lower case, ASCII, without a trailing dot.
    Name(String),
    /// Every name that has whole labels before this one, itself in the form of `Name`.
    Below(String),
    /// Every address of the block. One that maps IPv4 into IPv6 is kept as IPv4.
    Block(IpNet),
}

/// Why a rule is refused where it is entered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDomainRule {
    /// Nothing.
    #[error("the rule is empty; write a host, as in `www.example.com`")]
    Empty,
    /// Longer than [`MAX_RULE`].
    #[error("the rule is longer than {MAX_RULE} bytes")]
    TooLong,
    /// A space, a control character.
    #[error("the rule holds a space or a control character; write each rule alone and without spaces")]
    Space,
    /// `\`.
    #[error("the rule holds a backslash; separate with `/`")]
    Backslash,
    /// `?` or `#`.
    #[error("a rule has no query and no fragment; leave out everything from `{0}` on")]
    QueryOrFragment(char),
    /// A scheme no page comes by.
    #[error("`{0}` is not a scheme a page comes by; write `http://` or `https://`, or none for both")]
    Scheme(String),
    /// `user@`.
    #[error("a rule has no user information; write the host alone, without `…@`")]
    UserInfo,
    /// No host before the path or port.
    #[error("the rule has no host; write one, as in `www.example.com`")]
    NoHost,
    /// Not a DNS name.
    #[error("`{0}` is not a host name; write it as in `www.example.com`")]
    Name(String),
    /// `*` alone.
    #[error("`*` would admit every page; to allow that, leave the list of rules empty")]
    Everywhere,
    /// `*` anywhere but as the first label.
    #[error("`*` must be the whole first label, as in `*.example.com`, and stand once")]
    Wildcard,
    /// `*.` before an address.
    #[error("`*.` cannot stand before an address; write a block, as in `203.0.113.0/24`")]
    WildcardAddress,
    /// `*.` over names that belong to many.
    #[error(
        "`*.{0}` would admit the sites of strangers, for `{0}` is a public suffix; name a domain below it, as in `*.example.{0}`"
    )]
    PublicSuffix(String),
    /// An IPv4 address in a form that readers take differently.
    #[error("`{written}` is an odd form of an address; if you mean {address}, write that")]
    OddAddress {
        /// As it stands in the rule.
        written: String,
        /// As the URL standard reads it.
        address: Ipv4Addr,
    },
    /// What stands in brackets is no address, or something is stuck to them.
    #[error("`{0}` is not an address; write IPv6 as in `[2001:db8::1]`")]
    Address(String),
    /// An IPv6 address without brackets.
    #[error("an IPv6 address needs brackets; write `[{0}]`")]
    BareIpv6(Ipv6Addr),
    /// The number after an address is too large.
    #[error("`/{prefix}` is not the prefix of a block at {address}; write `/0` to `/{max}`")]
    Prefix {
        /// As it stands in the rule.
        prefix: String,
        /// The address before it.
        address: IpAddr,
        /// Bits of the address.
        max: u8,
    },
    /// The address has bits beyond the prefix.
    #[error("{address} has bits beyond its prefix; write `{block}` for the block, or leave `/{}` out for the one address", .block.prefix_len())]
    BitsBeyondPrefix {
        /// The address as it stands in the rule.
        address: IpAddr,
        /// The block it lies in.
        block: IpNet,
    },
    /// Not a port.
    #[error("`{0}` is not a port; write a number from 1 to 65535")]
    Port(String),
    /// `*` in the path.
    #[error("a path has no `*`: it admits itself and all below it; leave the `*` out")]
    PathWildcard,
    /// `.` or `..` in the path.
    #[error("the path has a `.` or `..` segment; write the path it leads to")]
    PathDots,
    /// `%` without two hex digits.
    #[error("the path has a `%` that two hex digits do not follow; write `%25` for the sign itself")]
    PathEscape,
}

impl DomainRule {
    /// Reads a rule.
    pub fn parse(text: &str) -> Result<Self, BadDomainRule> {
        read::rule(text)
    }

    /// The rule as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path that a page's path must equal or continue; `None` for any.
    pub(super) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Whether the rule speaks of clients' addresses only, and of no page.
    pub(super) fn is_of_clients(&self) -> bool {
        let bare = self.scheme.is_none() && self.port.is_none() && self.path.is_none();
        bare && matches!(self.host, RuleHost::Block(_))
    }

    /// Whether a client with this address is admitted whatever page it names. Only a bare address or block does that: a
    /// scheme, port or path speaks of pages.
    pub(super) fn admits_client(&self, client: IpAddr) -> bool {
        let RuleHost::Block(block) = &self.host else { return false };
        self.is_of_clients() && block.contains(&client.to_canonical())
    }

    /// Whether the rule admits the page's origin. Its path is another question.
    pub(super) fn admits_origin(&self, page: &Seen<'_>) -> bool {
        let Some(scheme) = page.scheme else { return false };
        let host = match (&self.host, page.host) {
            (RuleHost::Name(name), PageHost::Name(host)) => name == host,
            (RuleHost::Below(parent), PageHost::Name(host)) => host
                .strip_suffix(parent.as_str())
                .and_then(|labels| labels.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
            (RuleHost::Block(block), PageHost::Address(address)) => block.contains(&address),
            _ => false,
        };
        host && self.scheme.is_none_or(|wanted| wanted == scheme)
            && self.port.is_none_or(|wanted| page.port == Some(wanted))
    }
}

impl fmt::Display for DomainRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
