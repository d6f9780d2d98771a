//! From which pages a token may be used (`policy.md`, "Allowed domains").
//!
//! Owns the verdict over a list of rules. A rule's grammar is in `rule`, what `Origin` and `Referer` say is in
//! `page`, the comparison of paths in `path`. It must not know headers beyond their values, nor which proxies are
//! trusted: the client's address is an argument.

mod page;
mod path;
mod rule;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::byte_set::{ByteSet, byte_set};

pub use page::{Page, Unclear};
pub use rule::{BadDomainRule, DomainRule, MAX_RULE};

/// The schemes that pages come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Whether this is a DNS name in the one form that rules and pages are compared in: lower case, ASCII, no trailing dot
/// (RFC 1123, 2.1; `_` is in use).
fn is_name(name: &str) -> bool {
    static LABEL: ByteSet =
        byte_set!(byte => byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    let mut label = 0;
    let sound = name.bytes().all(|byte| {
        let ends = byte == b'.';
        let sound = if ends { label > 0 } else { label < 63 && LABEL.has(byte) };
        label = if ends { 0 } else { label + 1 };
        sound
    });
    sound && label > 0 && name.len() <= 253
}

/// The allowed domains of a token. An empty list admits every request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DomainRules(Vec<DomainRule>);

impl DomainRules {
    /// Reads a list of rules. The error says which one, counted from 0, is wrong, and why.
    pub fn parse<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, BadDomainRule)> {
        let read = |(at, text)| DomainRule::parse(text).map_err(|problem| (at, problem));
        let mut rules = rules.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        // Many policies are in memory, most with one rule.
        rules.shrink_to_fit();
        Ok(Self(rules))
    }

    /// Reads rules separated by white space, as the console and the command line take them.
    pub fn parse_list(text: &str) -> Result<Self, (usize, BadDomainRule)> {
        Self::parse(text.split_whitespace())
    }

    /// Whether there is no rule, so that every request is admitted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some rule speaks of pages, not only of clients' addresses.
    pub fn name_pages(&self) -> bool {
        self.iter().any(|rule| !rule.is_of_clients())
    }

    /// The rules in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, DomainRule> {
        self.0.iter()
    }

    /// Whether a request from this page, by a client with this address, is admitted.
    ///
    /// Headers that contradict each other are refused even when the client's address would do: someone made them.
    pub fn admit(&self, page: &Page, client: Option<IpAddr>) -> Result<(), DomainRefusal> {
        if self.is_empty() {
            return Ok(());
        }
        let seen = page.seen().map_err(DomainRefusal::Unclear)?;
        if client.is_some_and(|client| self.iter().any(|rule| rule.admits_client(client))) {
            return Ok(());
        }
        let seen = seen.ok_or(DomainRefusal::NoPage)?;
        let mut refusal = DomainRefusal::NotAdmitted;
        for rule in self.iter().filter(|rule| rule.admits_origin(&seen)) {
            let Some(wanted) = rule.path() else { return Ok(()) };
            match seen.path() {
                None => refusal = DomainRefusal::NeedsReferer,
                Some(path) if path::continues(&path, wanted) => return Ok(()),
                Some(_) => {}
            }
        }
        Err(refusal)
    }
}

impl<'a> IntoIterator for &'a DomainRules {
    type Item = &'a DomainRule;
    type IntoIter = std::slice::Iter<'a, DomainRule>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Why no rule admits a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DomainRefusal {
    /// Neither `Origin` nor `Referer`, and no address rule admits the client.
    NoPage,
    /// The headers do not name one page.
    Unclear(Unclear),
    /// No rule admits the page.
    NotAdmitted,
    /// A rule with a path would admit the origin, but there is no `Referer` to show the path.
    NeedsReferer,
}

impl DomainRefusal {
    /// The reason in a few words, for logs and explanations. Holds nothing of the request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPage => "no Origin or Referer",
            Self::Unclear(unclear) => unclear.as_str(),
            Self::NotAdmitted => "no rule admits the page",
            Self::NeedsReferer => "a rule with a path needs a Referer",
        }
    }
}
