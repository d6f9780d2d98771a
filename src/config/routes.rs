//! `routes`: which paths serve which data. What a route means is [`crate::policy::route`]'s.

use std::ops::RangeInclusive;

use super::reader::{Fields, Item, Keys, Read, did_you_mean};
use crate::policy::DatasetId;
use crate::policy::route::{Access, DatasetTemplate, PathTemplate, Route, RouteTable};
use crate::policy::signature::{DEFAULT_MAX_SIGNED_BODY, SignatureBody};

mod methods;
mod price;
mod rewrite;

#[cfg(test)]
pub(super) use rewrite::KEYS as REWRITE_KEYS;

pub(super) const KEYS: Keys = Keys {
    known: &[
        "path",
        "upstream",
        "access",
        "dataset",
        "batch_separator_param",
        "credits",
        "per_item",
        "per_kilobyte",
        "per_record",
        "per_event",
        "from_header",
        "max_credits",
        "methods",
        "operations",
        "signed",
        "signature_body",
        "max_signed_body",
        "encoded_slash",
        "rewrite",
    ],
    later: &[],
};

const ACCESS: [(&str, Access); 3] =
    [("core", Access::Core), ("premium", Access::Premium), ("dataset", Access::Dataset)];

const SIGNATURE_BODY: [(&str, SignatureBody); 2] =
    [("strict", SignatureBody::Strict), ("lenient", SignatureBody::Lenient)];

const A_DATASET: &str = "a data set such as \"{workspace}/{dataset}\"";

/// A body that is held back stands in memory, so even the largest is not very large.
const SIGNED_BODIES: RangeInclusive<u64> = 0..=64 << 20;

/// Paths read so far, and where.
type Seen<'r> = Vec<(PathTemplate, Item<'r>)>;

/// Reads the routes. `upstreams` are the names declared; `None` if they could not be read.
pub(super) fn read(fields: &Fields<'_>, upstreams: Option<&[&str]>) -> Read<RouteTable> {
    let item = fields.require("routes", "at least one route; without one nothing would be let through")?;
    let items = item.list("a list of routes such as `- path: /v1/data/{dataset}`")?;
    if items.is_empty() {
        return Err(item.refuse("no route: nothing would be let through; expected at least one"));
    }
    let mut seen = Seen::new();
    let max_signed_body =
        fields.or("max_signed_body", DEFAULT_MAX_SIGNED_BODY, |item| item.size(SIGNED_BODIES));
    let context = Context { upstreams, max_signed_body };
    let routes: Vec<Read<Route>> = items.iter().map(|item| read_route(item, &context, &mut seen)).collect();
    Ok(RouteTable::new(routes.into_iter().collect::<Read<_>>()?))
}

/// What is said outside of a route and counts for it.
struct Context<'c> {
    /// The names declared; `None` if they could not be read.
    upstreams: Option<&'c [&'c str]>,
    /// For routes that do not say it themselves.
    max_signed_body: Read<u64>,
}

fn read_route<'r>(item: &Item<'r>, context: &Context<'_>, seen: &mut Seen<'r>) -> Read<Route> {
    let fields = item.fields(&KEYS, "a mapping such as `path: /v1/data/{dataset}`")?;
    let path = fields.require("path", "a path such as /v1/data/{dataset}/**");
    let path = path.and_then(|item| read_path(&item, seen));
    let known_path = path.as_ref().map_err(|noted| *noted);
    let upstream = fields.require("upstream", "the name of an upstream");
    let upstream = upstream.and_then(|item| read_upstream(&item, context.upstreams));
    let access = fields.require("access", "core, premium or dataset");
    let access = access.and_then(|item| item.choice(&ACCESS));
    let dataset = fields.optional("dataset", |item| read_dataset(item, known_path));
    if let (Ok(Access::Dataset), Ok(None)) = (&access, &dataset) {
        fields.refuse_missing("dataset", &format!("missing; `access: dataset` needs {A_DATASET}"));
    }
    let batch_separator_param =
        fields.optional("batch_separator_param", |item| read_separator(item, &fields));
    let methods = methods::read(&fields);
    let price = price::read(&fields, known_path, methods.as_ref().map_err(|noted| *noted));
    let signed = fields.or("signed", false, Item::boolean);
    let signature_body =
        fields.or("signature_body", SignatureBody::default(), |item| item.choice(&SIGNATURE_BODY));
    let max_signed_body = match fields.get("max_signed_body") {
        Some(item) => item.size(SIGNED_BODIES),
        None => context.max_signed_body,
    };
    let keep_encoded_slash = fields.or("encoded_slash", false, |item| read_slash(item, known_path));
    let rewrite = fields.optional("rewrite", |item| rewrite::read(item, known_path));
    let (price, items) = price?;
    Ok(Route {
        path: path?,
        upstream: upstream?,
        access: access?,
        dataset: dataset?,
        batch_separator_param: batch_separator_param?,
        methods: methods?,
        price,
        items,
        signed: signed?,
        signature_body: signature_body?,
        max_signed_body: max_signed_body?,
        keep_encoded_slash: keep_encoded_slash?,
        rewrite: rewrite?,
    })
}

fn read_path<'r>(item: &Item<'r>, seen: &mut Seen<'r>) -> Read<PathTemplate> {
    let path = item.try_parse("a path such as /v1/data/{dataset}/**", PathTemplate::parse)?;
    let earlier = seen.iter().find(|(earlier, _)| covers(earlier, &path));
    let refused = earlier.map(|(earlier, place)| {
        let which = if earlier.same_paths(&path) { "exactly the same paths" } else { "all of its paths" };
        item.refuse(format!(
            "{path} is never reached: {} ({earlier}, line {}) serves {which} and comes first; \
             take one out, or put the narrower one first",
            place.key(),
            place.line(),
        ))
    });
    seen.push((path.clone(), item.clone()));
    refused.map_or(Ok(path), Err)
}

/// Whether every path of `inner` is one of `outer`'s.
fn covers(outer: &PathTemplate, inner: &PathTemplate) -> bool {
    let segments = |path: &PathTemplate| -> Vec<String> {
        let text = path.to_string();
        let text = text.strip_suffix("/**").unwrap_or(&text);
        text.split('/').skip(1).filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    };
    let (wide, narrow) = (segments(outer), segments(inner));
    let long_enough = if outer.has_tail() {
        narrow.len() >= wide.len()
    } else {
        narrow.len() == wide.len() && !inner.has_tail()
    };
    long_enough && wide.iter().zip(&narrow).all(|(wide, narrow)| wide.starts_with('{') || wide == narrow)
}

fn read_upstream(item: &Item<'_>, upstreams: Option<&[&str]>) -> Read<String> {
    let expected = "the name of an upstream";
    let name = item.text(expected)?;
    match upstreams {
        Some(declared) if !declared.contains(&name.as_str()) => {
            let hint = did_you_mean(&name, declared.iter().copied());
            let start = if hint.is_empty() { "; declared" } else { " Declared" };
            let shown = item.scalar(expected)?.shown();
            Err(item.refuse(format!("no upstream is named {shown}{hint}{start}: {}", declared.join(", "))))
        }
        _ => Ok(name),
    }
}

/// Reads the template. Where the path has a mistake, only its type can be judged.
fn read_dataset(item: &Item<'_>, path: Read<&PathTemplate>) -> Read<DatasetTemplate> {
    item.text(A_DATASET)?;
    let path = path?;
    let template = item.try_parse(A_DATASET, |text| DatasetTemplate::parse(text, path))?;
    let text = template.to_string();
    if text.contains('/') && DatasetId::parse(&fill(&text)).is_none() {
        let shown = item.scalar(A_DATASET)?.shown();
        return Err(item.refuse(format!(
            "{shown} can never name a data set; the names beside the slash are letters, digits, `_`, `-` and `.`"
        )));
    }
    Ok(template)
}

/// The template with a letter for each `{name}`, to see whether the rest of it can stand in a data set's id.
fn fill(template: &str) -> String {
    let mut inside = false;
    let letter = |c: char| {
        let shown = if inside { None } else { Some(if c == '{' { 'x' } else { c }) };
        inside = (inside || c == '{') && c != '}';
        shown
    };
    template.chars().filter_map(letter).collect()
}

fn read_separator(item: &Item<'_>, fields: &Fields<'_>) -> Read<String> {
    let name = item.parse("the name of a query parameter other than `token`", |text| {
        let fine = !text.is_empty() && text != "token" && text.bytes().all(|b| b.is_ascii_graphic());
        fine.then(|| text.to_owned())
    })?;
    if fields.get("dataset").is_none() && fields.get("per_item").is_none() {
        let message =
            "there is nothing to separate without `dataset` or `per_item`; add one, or take this key out";
        return Err(item.refuse(message));
    }
    Ok(name)
}

fn read_slash(item: &Item<'_>, path: Read<&PathTemplate>) -> Read<bool> {
    let keep = item.choice(&[("refuse", false), ("keep", true)])?;
    match path {
        Ok(path) if keep && !path.has_tail() => Err(item.refuse(format!(
            "an encoded slash can be kept only below a final `/**`, which {path} does not have"
        ))),
        _ => Ok(keep),
    }
}

#[cfg(test)]
mod tests {
    use super::{PathTemplate, covers, fill};

    #[test]
    fn knows_which_route_hides_another() {
        let cases = [
            ("/**", "/", true),
            ("/**", "/a/{b}/**", true),
            ("/", "/**", false),
            ("/", "/", true),
            ("/", "/{a}", false),
            ("/a", "/a/**", false),
            ("/a/**", "/a", true),
            ("/a/**", "/ab", false),
            ("/{a}", "/b", true),
            ("/a", "/{b}", false),
            ("/{a}/b", "/{x}/b", true),
            ("/{a}/b", "/{x}/{b}", false),
            ("/a/{b}/**", "/a", false),
            ("/{v}/data/CORE/{set}/**", "/{v}/data/{workspace}/{set}/**", false),
            ("/{v}/data/{workspace}/{set}/**", "/{v}/data/CORE/{set}/**", true),
        ];
        let parse = |text| PathTemplate::parse(text).expect(text);
        for (outer, inner, expected) in cases {
            assert_eq!(covers(&parse(outer), &parse(inner)), expected, "{outer} hides {inner}");
        }
    }

    #[test]
    fn fills_in_names() {
        assert_eq!(fill("CORE/{a}-{query.b}"), "CORE/x-x");
        assert_eq!(fill("a/b"), "a/b");
    }
}
