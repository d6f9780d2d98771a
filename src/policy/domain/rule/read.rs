//! Reading a rule's text, part by part.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use url::Host;

use super::{BadDomainRule, DomainRule, MAX_RULE, RuleHost, Scheme};
use crate::policy::domain::is_name;
use crate::policy::domain::path::normalize;
use crate::policy::target::has_dot_segment;

/// Reads a whole rule.
pub(super) fn rule(text: &str) -> Result<DomainRule, BadDomainRule> {
    check_characters(text)?;
    let (scheme, rest) = split_scheme(text)?;
    let (authority, path) = split_before(rest, '/');
    if authority.contains('@') {
        return Err(BadDomainRule::UserInfo);
    }
    let authority = Authority::read(authority)?;
    let (host, port, path) = match authority.host {
        Written::Address(address) => match split_block(authority.port, path) {
            Some((prefix, port, path)) => (block(address, prefix)?, port, path),
            None => (authority.single(address)?, authority.port, path),
        },
        Written::Name(name) => (read_host(name)?, authority.port, path),
    };
    let port = port.map(read_port).transpose()?;
    Ok(DomainRule { text: text.to_owned(), scheme, host, port, path: read_path(path)? })
}

fn check_characters(text: &str) -> Result<(), BadDomainRule> {
    if text.is_empty() {
        return Err(BadDomainRule::Empty);
    }
    if text.len() > MAX_RULE {
        return Err(BadDomainRule::TooLong);
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control() || matches!(c, '\\' | '?' | '#')) {
        None => Ok(()),
        Some('\\') => Err(BadDomainRule::Backslash),
        Some(sign @ ('?' | '#')) => Err(BadDomainRule::QueryOrFragment(sign)),
        Some(_) => Err(BadDomainRule::Space),
    }
}

fn split_scheme(text: &str) -> Result<(Option<Scheme>, &str), BadDomainRule> {
    match text.split_once("://").filter(|(before, _)| !before.contains('/')) {
        None => Ok((None, text)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((Some(Scheme::Http), rest)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((Some(Scheme::Https), rest)),
        Some((scheme, _)) => Err(BadDomainRule::Scheme(scheme.to_owned())),
    }
}

/// Splits before the first `sign`, which stays with the second part.
fn split_before(text: &str, sign: char) -> (&str, &str) {
    text.find(sign).and_then(|at| text.split_at_checked(at)).unwrap_or((text, ""))
}

/// The host as it is written, and the port's text.
struct Authority<'a> {
    host: Written<'a>,
    port: Option<&'a str>,
    /// An IPv6 address without brackets, which only a block may be.
    needs_brackets: bool,
}

enum Written<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl<'a> Authority<'a> {
    fn read(text: &'a str) -> Result<Self, BadDomainRule> {
        let wrong = || BadDomainRule::Address(text.to_owned());
        if let Some(inner) = text.strip_prefix('[') {
            let (address, after) = inner.split_once(']').ok_or_else(wrong)?;
            let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or_else(wrong)?),
            };
            return Ok(Self { host: Written::Address(address.into()), port, needs_brackets: false });
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: Written::Address(address.into()), port: None, needs_brackets: true });
        }
        if text.contains("::") && !text.starts_with('*') {
            return Err(wrong());
        }
        let (host, port) = match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => (host, Some(port)),
        };
        if host.is_empty() {
            return Err(BadDomainRule::NoHost);
        }
        // The standard library reads only the plain form: four decimal numbers without leading zeros.
        let address = host.parse::<Ipv4Addr>().ok();
        let host = address.map_or(Written::Name(host), |address| Written::Address(address.into()));
        Ok(Self { host, port, needs_brackets: false })
    }

    /// One address as a host.
    fn single(&self, address: IpAddr) -> Result<RuleHost, BadDomainRule> {
        match address {
            IpAddr::V6(address) if self.needs_brackets => Err(BadDomainRule::BareIpv6(address)),
            _ => Ok(RuleHost::Block(address.to_canonical().into())),
        }
    }
}

/// Splits `/24[:port][/path]`, what follows the address of a block. A number after an address is a prefix, unless a port
/// stands before it: `203.0.113.9/app` and `203.0.113.9:80/24` have paths.
fn split_block<'a>(port: Option<&str>, path: &'a str) -> Option<(&'a str, Option<&'a str>, &'a str)> {
    let rest = path.strip_prefix('/').filter(|_| port.is_none())?;
    let (before, path) = split_before(rest, '/');
    let (prefix, port) = match before.split_once(':') {
        None => (before, None),
        Some((prefix, port)) => (prefix, Some(port)),
    };
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some((prefix, port, path))
}

fn block(address: IpAddr, prefix: &str) -> Result<RuleHost, BadDomainRule> {
    let max = if address.is_ipv4() { 32 } else { 128 };
    let wrong = || BadDomainRule::Prefix { prefix: prefix.to_owned(), address, max };
    let plain = prefix == "0" || !prefix.starts_with('0');
    let length: u8 = prefix.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    let given = IpNet::new(address, length).map_err(|_| wrong())?;
    let block = given.trunc();
    if block != given {
        return Err(BadDomainRule::BitsBeyondPrefix { address, block });
    }
    // Clients' addresses are compared as IPv4 when they map it; the block has to be too.
    let mapped = match (block.network().to_canonical(), length.checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if block.network().is_ipv6() => {
            Ipv4Net::new(address, length).ok()
        }
        _ => None,
    };
    Ok(RuleHost::Block(mapped.map_or(block, IpNet::from)))
}

fn read_host(name: &str) -> Result<RuleHost, BadDomainRule> {
    if name == "*" {
        return Err(BadDomainRule::Everywhere);
    }
    let Some(parent) = name.strip_prefix("*.") else {
        return match read_name(name)? {
            Host::Ipv4(address) => Err(BadDomainRule::OddAddress { written: name.to_owned(), address }),
            Host::Domain(name) => Ok(RuleHost::Name(name)),
            Host::Ipv6(_) => Err(BadDomainRule::Name(name.to_owned())),
        };
    };
    if parent.parse::<Ipv6Addr>().is_ok() || parent.starts_with('[') {
        return Err(BadDomainRule::WildcardAddress);
    }
    let Host::Domain(parent) = read_name(parent)? else { return Err(BadDomainRule::WildcardAddress) };
    // The list also has suffixes one label below (`*.kobe.jp`), where this wildcard would cover strangers as well.
    if is_public_suffix(&parent) || is_public_suffix(&format!("x.{parent}")) {
        return Err(BadDomainRule::PublicSuffix(parent));
    }
    Ok(RuleHost::Below(parent))
}

/// Whether this is a public suffix, the list's private part included. So is every top-level name the list does not have.
fn is_public_suffix(name: &str) -> bool {
    psl::suffix_str(name) == Some(name)
}

/// Brings a name to lower case ASCII without a trailing dot.
fn read_name(name: &str) -> Result<Host<String>, BadDomainRule> {
    let wrong = || BadDomainRule::Name(name.to_owned());
    if name.contains('*') {
        return Err(BadDomainRule::Wildcard);
    }
    if name.contains(['%', '[', ']']) {
        return Err(wrong());
    }
    let mut ascii = match Host::parse(name).map_err(|_| wrong())? {
        Host::Domain(ascii) => ascii,
        address => return Ok(address),
    };
    if ascii.ends_with('.') {
        ascii.pop();
    }
    if is_name(&ascii) { Ok(Host::Domain(ascii)) } else { Err(wrong()) }
}

fn read_port(text: &str) -> Result<u16, BadDomainRule> {
    let plain = !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| plain).ok_or_else(|| BadDomainRule::Port(text.to_owned()))
}

fn read_path(path: &str) -> Result<Option<String>, BadDomainRule> {
    if matches!(path, "" | "/") {
        return Ok(None);
    }
    if path.contains('*') {
        return Err(BadDomainRule::PathWildcard);
    }
    let escapes = path.split('%').skip(1);
    if !escapes.into_iter().all(|after| after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2) {
        return Err(BadDomainRule::PathEscape);
    }
    let path = normalize(path);
    if has_dot_segment(&path) { Err(BadDomainRule::PathDots) } else { Ok(Some(path)) }
}
