//! Any templates and any target: a request names a bounded number of well-formed data sets, or is refused.

use http::Method;

use crate::policy::cost::{Credits, Price};
use crate::policy::query::take_tokens;
use crate::policy::route::{
    Access, DatasetTemplate, Items, MAX_BATCH, Methods, PathTemplate, Route, RouteTable,
};
use crate::policy::signature::SignatureBody;
use crate::policy::target::Target;
use crate::policy::{DatasetId, Operation};

/// Checks one input: lines with a path, a data set's template, a separator's parameter, and targets.
pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let (path, template, separator) = (text(), text(), text());
    let Ok(path) = PathTemplate::parse(path) else { return };
    assert_eq!(PathTemplate::parse(path.as_str()).expect("read once").as_str(), path.as_str());
    let dataset = DatasetTemplate::parse(template, &path).ok();
    let route = Route {
        items: Items::segment("items", &path),
        path,
        upstream: "datasets".to_owned(),
        access: if dataset.is_some() { Access::Dataset } else { Access::Core },
        dataset,
        batch_separator_param: Some(separator.to_owned()).filter(|name| !name.is_empty()),
        methods: Methods::new(vec![(Method::GET, Operation::Read), (Method::POST, Operation::Write)]),
        price: Price::flat(Credits(1)),
        signed: false,
        signature_body: SignatureBody::Strict,
        max_signed_body: 1,
        keep_encoded_slash: separator.len() % 2 == 1,
        rewrite: None,
    };
    let named = route.dataset.is_some();
    let table = RouteTable::new(vec![route]);
    for line in lines {
        let Ok(mut target) = Target::parse(line, None) else { continue };
        let (_, rest) = take_tokens(target.query());
        target.set_query(rest);
        let Ok((at, route)) = table.find(&target) else { continue };
        assert_eq!(at, 0);
        if let Ok(errand) = route.errand(&target, &Method::GET) {
            assert!(errand.datasets.len() <= MAX_BATCH);
            assert_eq!(named, !errand.datasets.is_empty());
            assert!(errand.datasets.iter().all(|id| DatasetId::parse(id.as_str()).as_ref() == Some(id)));
            assert_eq!(errand.operation, Operation::Read);
        }
        assert!(route.errand(&target, &Method::DELETE).is_err(), "a method that is not served");
    }
}
