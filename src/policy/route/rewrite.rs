//! What is changed on the way to an upstream and back: its path, its `Host`, some headers.
//!
//! Pure. A request is judged by what the client sent; what is written here comes after that, and is made only of the
//! judged path's own segments and of literals that were checked, so a canonical path stays one.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};

use super::template::PathTemplate;
use crate::policy::target::Target;

/// Why a rewriting is refused in `proxy.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRewrite {
    /// It is no path, or has another, canonical form.
    #[error(
        "it is not in canonical form: a path starts with `/`, has no empty or dot segment, and escapes only what must be escaped"
    )]
    NotCanonical,
    /// A segment that is partly a name.
    #[error("`{0}` is not a segment; use a literal or `{{name}}`")]
    BadSegment(String),
    /// A name that the route's path does not have.
    #[error("`{{{0}}}` is not a segment of the route's path")]
    UnknownName(String),
    /// `{rest}` elsewhere than at the end.
    #[error("`{{rest}}` stands only as the last segment")]
    RestInside,
    /// `{rest}` of a path without a tail.
    #[error("there is no `{{rest}}`: the route's path has no final `/**`")]
    NoRest,
    /// A path with a tail that would be dropped.
    #[error(
        "the route's path ends in `/**`, so this must end in `/{{rest}}`: else many paths would become one"
    )]
    RestMissing,
    /// A prefix that the route's paths do not begin with.
    #[error("not every path of the route begins with it")]
    NotThePrefix,
}

/// What is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The path that the upstream gets.
    pub path: NewPath,
    /// The `Host` that the upstream gets; `None`: as the upstream's own setting says.
    pub host: Option<String>,
    /// Headers of the request.
    pub request: HeaderChanges,
    /// Headers of the response, before the gate adds its own.
    pub response: HeaderChanges,
}

/// Headers that are set and taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Set, in place of all of that name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Taken away.
    pub remove: Vec<HeaderName>,
}

/// The path that an upstream gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPath(Kind);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Kind {
    /// The judged one.
    #[default]
    Same,
    /// Put together anew.
    Template(Vec<Piece>),
    /// Without so many first segments, and behind these.
    Prefix { strip: usize, add: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// The segment of the judged path at this place.
    Segment(usize),
    /// All segments from this place on.
    Rest(usize),
}

impl NewPath {
    /// Reads a template such as `/internal/{dataset}/{rest}` for the paths of a route.
    pub fn parse(text: &str, of: &PathTemplate) -> Result<Self, BadRewrite> {
        let rest = text.strip_prefix('/').ok_or(BadRewrite::NotCanonical)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let mut pieces = Vec::new();
        let mut example = String::new();
        for (at, part) in parts.iter().enumerate() {
            let name = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let piece = match name {
                Some("rest") if of.position("rest").is_none() => {
                    if at + 1 != parts.len() {
                        return Err(BadRewrite::RestInside);
                    }
                    if !of.has_tail() {
                        return Err(BadRewrite::NoRest);
                    }
                    Piece::Rest(of.fixed_len())
                }
                Some(name) => {
                    let known = of.position(name).map(Piece::Segment);
                    known.ok_or_else(|| BadRewrite::UnknownName(name.to_owned()))?
                }
                None if part.contains(['{', '}']) => return Err(BadRewrite::BadSegment((*part).to_owned())),
                None => Piece::Literal((*part).to_owned()),
            };
            // Writing into memory does not fail.
            let _ = write!(example, "/{}", if name.is_some() { "x" } else { part });
            pieces.push(piece);
        }
        check_canonical(&example)?;
        if of.has_tail() && !matches!(pieces.last(), Some(Piece::Rest(_))) {
            return Err(BadRewrite::RestMissing);
        }
        Ok(Self(Kind::Template(pieces)))
    }

    /// Reads a prefix that is taken off the paths of a route, and one that is put in front of what is left.
    pub fn parse_prefix(
        strip: Option<&str>,
        add: Option<&str>,
        of: &PathTemplate,
    ) -> Result<Self, BadRewrite> {
        let mut count = 0;
        if let Some(strip) = strip {
            check_canonical(strip)?;
            let literals: Vec<&str> = strip.split('/').skip(1).collect();
            if !of.begins_with(&literals) {
                return Err(BadRewrite::NotThePrefix);
            }
            count = literals.len();
        }
        if let Some(add) = add {
            check_canonical(add)?;
            if add.ends_with('/') {
                return Err(BadRewrite::NotCanonical);
            }
        }
        Ok(Self(Kind::Prefix { strip: count, add: add.unwrap_or_default().to_owned() }))
    }

    /// The target that the upstream gets, for a judged one. The query stays as it is.
    pub fn apply<'t>(&self, judged: &'t str) -> Cow<'t, str> {
        let (path, query) = judged.split_at(judged.find('?').unwrap_or(judged.len()));
        let mut segments = path.split('/').skip(1);
        let mut new = String::with_capacity(judged.len() + 16);
        let mut push = |segment: &str| {
            new.push('/');
            new.push_str(segment);
        };
        match &self.0 {
            Kind::Same => return Cow::Borrowed(judged),
            Kind::Template(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Literal(text) => push(text),
                        Piece::Segment(at) => push(segments.clone().nth(*at).unwrap_or_default()),
                        Piece::Rest(from) => segments.clone().skip(*from).for_each(&mut push),
                    }
                }
            }
            Kind::Prefix { strip, add } => {
                add.split('/').skip(1).for_each(&mut push);
                segments.by_ref().skip(*strip).for_each(&mut push);
            }
        }
        if new.is_empty() {
            new.push('/');
        }
        new.push_str(query);
        Cow::Owned(new)
    }
}

/// A path that reading does not change.
fn check_canonical(path: &str) -> Result<(), BadRewrite> {
    let target = Target::parse(path.as_bytes(), None).map_err(|_| BadRewrite::NotCanonical)?;
    let same = target.path() == path && target.query().is_none() && !target.holds_token();
    if same { Ok(()) } else { Err(BadRewrite::NotCanonical) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> PathTemplate {
        PathTemplate::parse(path).expect(path)
    }

    #[test]
    fn paths_are_put_together_of_judged_segments() {
        let table = [
            ("/{v}/data/{set}/**", "/internal/{set}/{rest}", "/v1/data/A/b/c?x=1", "/internal/A/b/c?x=1"),
            ("/{v}/data/{set}/**", "/internal/{set}/{rest}", "/v1/data/A", "/internal/A"),
            ("/{v}/data/{set}/**", "/internal/{set}/{rest}", "/v1/data/A/", "/internal/A/"),
            ("/{v}/data/{set}/**", "/{rest}", "/v1/data/A", "/"),
            ("/{v}/data/{set}/**", "/{rest}", "/v1/data/A?q=/../x", "/?q=/../x"),
            ("/{v}/data/{set}/**", "/{set}/{v}/{rest}", "/v1/data/%C3%A9/b%2Fc", "/%C3%A9/v1/b%2Fc"),
            ("/{a}", "/x/{a}/", "/b", "/x/b/"),
            ("/{rest}/b", "/{rest}", "/a/b", "/a"),
            ("/a", "/", "/a", "/"),
        ];
        for (of, template, judged, expected) in table {
            let path = NewPath::parse(template, &route(of)).expect(template);
            assert_eq!(path.apply(judged), expected, "{template} of {judged}");
            let again = Target::parse(expected.as_bytes(), None).expect("a target");
            assert_eq!(again.to_wire(), expected, "it is canonical");
        }
    }

    #[test]
    fn prefixes_are_taken_off_and_put_on() {
        let table = [
            (Some("/api"), None, "/api/v1/x?y", "/v1/x?y"),
            (Some("/api"), None, "/api", "/"),
            (Some("/api"), None, "/api/", "/"),
            (Some("/api"), Some("/inner/one"), "/api/x", "/inner/one/x"),
            (None, Some("/inner"), "/api/x/", "/inner/api/x/"),
        ];
        for (strip, add, judged, expected) in table {
            let path = NewPath::parse_prefix(strip, add, &route("/api/**")).expect("a prefix");
            assert_eq!(path.apply(judged), expected, "{strip:?} {add:?} of {judged}");
        }
    }

    #[test]
    fn what_would_not_be_canonical_is_refused() {
        let of = route("/{v}/data/{set}/**");
        let table = [
            ("internal/{rest}", BadRewrite::NotCanonical),
            ("/../{rest}", BadRewrite::NotCanonical),
            ("/a//{rest}", BadRewrite::NotCanonical),
            ("/%61/{rest}", BadRewrite::NotCanonical),
            ("/a?b/{rest}", BadRewrite::NotCanonical),
            ("/a b/{rest}", BadRewrite::NotCanonical),
            ("/.{set}/{rest}", BadRewrite::BadSegment(".{set}".to_owned())),
            ("/{set}{v}/{rest}", BadRewrite::UnknownName("set}{v".to_owned())),
            ("/{other}/{rest}", BadRewrite::UnknownName("other".to_owned())),
            ("/{rest}/{set}", BadRewrite::RestInside),
            ("/{set}", BadRewrite::RestMissing),
        ];
        for (template, expected) in table {
            assert_eq!(NewPath::parse(template, &of), Err(expected), "{template}");
        }
        assert_eq!(NewPath::parse("/{rest}", &route("/{a}")), Err(BadRewrite::NoRest));
        let prefixes = [
            (Some("/data"), None, BadRewrite::NotThePrefix),
            (Some("/x"), None, BadRewrite::NotThePrefix),
            (Some("x"), None, BadRewrite::NotCanonical),
            (None, Some("/x/"), BadRewrite::NotCanonical),
            (None, Some("/x/.."), BadRewrite::NotCanonical),
        ];
        for (strip, add, expected) in prefixes {
            assert_eq!(NewPath::parse_prefix(strip, add, &of), Err(expected), "{strip:?} {add:?}");
        }
    }
}
