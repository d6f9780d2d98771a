use http::Method;

use super::*;
use crate::policy::Credits;
use crate::policy::route::{DatasetTemplate, PathTemplate};

fn route(path: &str, dataset: Option<&str>) -> Route {
    let path = PathTemplate::parse(path).unwrap();
    let dataset = dataset.map(|text| DatasetTemplate::parse(text, &path).unwrap());
    Route {
        path,
        upstream: "datasets".to_owned(),
        access: Access::Dataset,
        dataset,
        batch_separator_param: Some("batchSeparator".to_owned()),
        methods: Methods::default(),
        price: Price::flat(Credits(1)),
        items: None,
        signed: false,
        signature_body: crate::policy::signature::SignatureBody::Strict,
        max_signed_body: 1024,
        keep_encoded_slash: false,
        rewrite: None,
    }
}

fn target(text: &str) -> Target {
    Target::parse(text.as_bytes(), None).unwrap()
}

#[test]
fn templates_serve_their_paths_and_no_others() {
    // (template, path, served)
    let table = [
        ("/a/b", "/a/b", true),
        ("/a/b", "/a//b", true),
        ("/a/b", "/a/b/", false),
        ("/a/b", "/a", false),
        ("/a/b", "/a/b/c", false),
        ("/a/b", "/A/b", false),
        ("/a/b", "/%61/b", true),
        ("/a/{x}", "/a/anything", true),
        ("/a/{x}", "/a/", false),
        ("/a/{x}/**", "/a/b", true),
        ("/a/{x}/**", "/a/b/", true),
        ("/a/{x}/**", "/a/b/c/d", true),
        ("/a/{x}/**", "/a/", false),
        ("/a/{x}/**", "/a", false),
        ("/**", "/", true),
        ("/**", "/a/b", true),
        ("/", "/", true),
        ("/", "/a", false),
        ("/v1/data/CORE/{d}/**", "/v1/data/CORE,MY/X", false),
        ("/v1/data/CORE/{d}/**", "/v1/data/core/X", false),
        ("/v1/data/CORE/{d}/**", "/v1/data/COR%45/X", true),
        ("/v1/data/CORE/{d}/**", "/v1/data/CORE;x/X", false),
    ];
    for (template, path, served) in table {
        let table = RouteTable::new(vec![route(template, None)]);
        assert_eq!(table.find(&target(path)).is_ok(), served, "{template} on {path}");
    }
}

#[test]
fn the_first_route_of_the_file_decides() {
    let table = RouteTable::new(vec![route("/v1/CORE/{d}/**", None), route("/v1/{w}/{d}/**", None)]);
    assert_eq!(table.find(&target("/v1/CORE/X")).unwrap().1.to_string(), "/v1/CORE/{d}/**");
    assert_eq!(table.find(&target("/v1/MY/X")).unwrap().1.to_string(), "/v1/{w}/{d}/**");
}

#[test]
fn an_encoded_slash_stands_only_in_a_tail_that_keeps_it() {
    let mut keeping = route("/d/{w}/**", None);
    keeping.keep_encoded_slash = true;
    let keeping = RouteTable::new(vec![keeping]);
    let plain = RouteTable::new(vec![route("/d/{w}/**", None)]);
    let refused = Some(Denial::BadTarget(BadTarget::EncodedSlash));
    assert_eq!(plain.find(&target("/d/w/a%2Fb")).err(), refused);
    assert_eq!(keeping.find(&target("/d/w/a%2fb")).err(), None);
    assert_eq!(keeping.find(&target("/d/w%2Fa/b")).err(), refused);
}

#[test]
fn a_batch_names_each_of_its_data_sets_however_it_is_written() {
    let route = route("/v1/data/{workspace}/{dataset}/**", Some("{workspace}/{dataset}"));
    // (target, data sets or the reason against it)
    let table: &[(&str, Result<&[&str], BadTarget>)] = &[
        ("/v1/data/MY/CARS", Ok(&["MY/CARS"])),
        ("/v1/data/MY/CARS/audi/a4", Ok(&["MY/CARS"])),
        ("/v1/data/MY/A,B", Ok(&["MY/A", "MY/B"])),
        ("/v1/data/MY/A%2CB", Ok(&["MY/A", "MY/B"])),
        ("/v1/data/MY/A%2cB", Ok(&["MY/A", "MY/B"])),
        ("/v1/data/MY/,A,,B,", Ok(&["MY/A", "MY/B"])),
        ("/v1/data/MY,YOUR/A,B", Ok(&["MY/A", "MY/B", "YOUR/A", "YOUR/B"])),
        ("/v1/data/MY/A%7CB?batchSeparator=%7C", Ok(&["MY/A", "MY/B"])),
        ("/v1/data/MY/A%7CB?batchSeparator=|", Ok(&["MY/A", "MY/B"])),
        ("/v1/data/MY/A|B?batchSeparator=|", Ok(&["MY/A", "MY/B"])),
        ("/v1/data/MY/A|B,C?batchSeparator=|", Ok(&["MY/A", "MY/B", "MY/C"])),
        ("/v1/data/MY/A;B?%62atchSeparator=;", Ok(&["MY/A", "MY/B"])),
        // Without its separator, `A|B` is no name at all.
        ("/v1/data/MY/A|B", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/A|B?BatchSeparator=|", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/A|B?batchSeparator=;", Err(BadTarget::DatasetName)),
        // A separator that may stand in a name would let the upstream read other names than were judged.
        ("/v1/data/MY/CARSxSECRET?batchSeparator=x", Err(BadTarget::BatchSeparator)),
        ("/v1/data/MY/CARS_SECRET?batchSeparator=_", Err(BadTarget::BatchSeparator)),
        ("/v1/data/MY/CARS-SECRET?batchSeparator=-", Err(BadTarget::BatchSeparator)),
        ("/v1/data/MY/CARS.SECRET?batchSeparator=.", Err(BadTarget::BatchSeparator)),
        ("/v1/data/MY/A|B?batchSeparator=||", Err(BadTarget::BatchSeparator)),
        ("/v1/data/MY/A|B?batchSeparator=", Err(BadTarget::BatchSeparator)),
        ("/v1/data/MY/A|B?batchSeparator=|&batchSeparator=,", Err(BadTarget::BatchSeparator)),
        ("/v1/data/MY/A|B?batchSeparator=%0A", Err(BadTarget::BatchSeparator)),
        ("/v1/data/MY/,", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/A%20B", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/%C3%A9", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/%FF", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/CARS;v=1", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/CARS%00", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/*", Err(BadTarget::DatasetName)),
        ("/v1/data/*/CARS", Err(BadTarget::DatasetName)),
        ("/v1/data/MY/...", Err(BadTarget::DatasetName)),
    ];
    for (text, expected) in table {
        let Ok(target) = Target::parse(text.as_bytes(), None) else {
            assert!(expected.is_err(), "{text} has no canonical form");
            continue;
        };
        let found = route.datasets(&target);
        let found = found.map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        let expected = expected.map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn a_batch_has_an_end() {
    let route = route("/{w}/{d}", Some("{w}/{d}"));
    let many = vec!["A"; 17].join(",");
    let text = format!("/{many}/{many}");
    assert_eq!(route.datasets(&target(&text)), Err(BadTarget::DatasetName));
}

#[test]
fn a_query_parameter_may_name_the_data_set_and_only_once() {
    let route = route("/q/{w}", Some("{w}/{query.id}"));
    assert_eq!(route.datasets(&target("/q/MY?id=CARS")).unwrap()[0].as_str(), "MY/CARS");
    assert_eq!(route.datasets(&target("/q/MY?x=1&%69d=A,B")).unwrap().len(), 2);
    for text in ["/q/MY", "/q/MY?id=", "/q/MY?id=A&id=B", "/q/MY?ID=A", "/q/MY?id=A%2FB", "/q/MY?id[]=A"] {
        assert_eq!(route.datasets(&target(text)), Err(BadTarget::DatasetName), "{text}");
    }
}

#[test]
fn methods_are_served_as_the_route_says() {
    let usual = route("/a", None);
    // (method, operation)
    let table = [
        (Method::GET, Some(Operation::Read)),
        (Method::HEAD, Some(Operation::Read)),
        (Method::POST, Some(Operation::Write)),
        (Method::PUT, Some(Operation::Write)),
        (Method::PATCH, Some(Operation::Write)),
        (Method::DELETE, Some(Operation::Delete)),
        (Method::OPTIONS, None),
        (Method::TRACE, None),
        (Method::CONNECT, None),
        (Method::from_bytes(b"get").unwrap(), None),
        (Method::from_bytes(b"PROPFIND").unwrap(), None),
    ];
    for (method, operation) in table {
        assert_eq!(
            usual.errand(&target("/a"), &method).ok().map(|errand| errand.operation),
            operation,
            "{method}"
        );
    }
    let mut queries = route("/a", None);
    queries.methods = Methods::new(vec![(Method::POST, Operation::Read)]);
    assert_eq!(queries.errand(&target("/a"), &Method::POST).unwrap().operation, Operation::Read);
    let refused = queries.errand(&target("/a"), &Method::GET).unwrap_err();
    assert_eq!(refused, Denial::MethodNotAllowed { allow: "POST".to_owned() });
}

#[test]
fn refuses_templates_that_are_none() {
    for text in [
        "", "a", "/a/", "/a//b", "/**/a", "/a/**/b", "/a/{", "/a/{}", "/a/x{b}", "/{a}/{a}", "/a b", "/..",
        "/a/**b", "/%41",
    ] {
        assert!(PathTemplate::parse(text).is_err(), "{text}");
    }
    let path = PathTemplate::parse("/{w}/{d}/**").unwrap();
    for text in ["", "x", "{w}", "{w}/{d}/x", "{x}/{d}", "{w/{d}", "{w}/{d", "}/x", "{query.}/x", "{}/x"] {
        assert!(DatasetTemplate::parse(text, &path).is_err(), "{text}");
    }
    for text in ["{w}/{d}", "CORE/{d}", "{query.id}", "{query.w}/{query.d}", "CORE/QUOTE", "{w}/V1_{d}"] {
        assert!(DatasetTemplate::parse(text, &path).is_ok(), "{text}");
    }
}

#[test]
fn counts_items_as_batches_do() {
    let query = Items::Query("symbols".to_owned());
    let cases = [
        ("/stock?symbols=AAPL", 1),
        ("/stock?symbols=AAPL,MSFT,GOOG", 3),
        ("/stock?symbols=AAPL%2CMSFT%2cGOOG", 3),
        ("/stock?%73ymbols=A,B", 2),
        ("/stock?symbols=A,,B,", 2),
        ("/stock?symbols=A,A", 2),
        ("/stock?symbols=A,B&x=1&symbols=C", 3),
        ("/stock?symbols=A%252CB", 1),
        ("/stock?symbols=A|B,C", 2),
        ("/stock?symbols=A|B,C&sep=|", 3),
        ("/stock?symbols=A|B&sep=%7C", 2),
        // What names no item still asks for something.
        ("/stock?symbols=", 1),
        ("/stock?symbols=,,", 1),
        ("/stock", 1),
        ("/stock?Symbols=A,B", 1),
    ];
    let mut priced = route("/stock", None);
    priced.batch_separator_param = Some("sep".to_owned());
    priced.items = Some(query);
    for (text, expected) in cases {
        let target = Target::parse(text.as_bytes(), None).expect(text);
        assert_eq!(priced.items(&target), Ok(expected), "{text}");
        assert_eq!(priced.errand(&target, &Method::GET).expect(text).items, expected, "{text}");
    }
    let mut priced = route("/stock/{symbols}/quote", None);
    priced.items = Items::segment("symbols", &priced.path);
    assert!(priced.items.is_some());
    for (text, expected) in [("/stock/A/quote", 1), ("/stock/A,B/quote", 2), ("/stock/A%2CB%2c/quote", 2)] {
        let target = Target::parse(text.as_bytes(), None).expect(text);
        assert_eq!(priced.items(&target), Ok(expected), "{text}");
    }
    assert_eq!(Items::segment("other", &priced.path), None);
    priced.items = None;
    let target = Target::parse(b"/stock/A,B/quote", None).expect("a target");
    assert_eq!(priced.items(&target), Ok(1));
}

#[test]
fn refuses_items_whose_separator_could_hide_some() {
    let mut priced = route("/stock", None);
    priced.batch_separator_param = Some("sep".to_owned());
    priced.items = Some(Items::Query("symbols".to_owned()));
    let target = Target::parse(b"/stock?symbols=AxB&sep=x", None).expect("a target");
    assert_eq!(priced.items(&target), Err(BadTarget::BatchSeparator));
}

proptest::proptest! {
    #[test]
    fn one_plain_data_set_reads_as_a_batch_of_one(
        path in "/(MY|a,b|A|%41|a;b|\\.\\.)/([A-C|;,.]{0,4}|%2C)",
        separator in proptest::option::of(proptest::sample::select(&['|', ';', ','][..])),
    ) {
        let Ok(target) = Target::parse(path.as_bytes(), None) else { return Ok(()) };
        for template in ["{w}/{d}", "CORE/{d}"] {
            let route = route("/{w}/{d}", Some(template));
            let template = route.dataset.as_ref().unwrap();
            if let Some(one) = one_dataset(template, &target, separator) {
                let all = batch(template, &target, separator).unwrap();
                let names: Vec<&str> = all.iter().map(DatasetId::as_str).collect();
                proptest::prop_assert_eq!(names, [one.as_str()]);
            }
        }
    }
}

#[test]
fn names_what_could_be_granted_of_its_data_sets() {
    let table = RouteTable::new(vec![
        route("/a/{dataset}", Some("CORE/{dataset}")),
        route("/b", Some("MY/CARS")),
        route("/c/{part}", Some("MY/CARS-{part}")),
        route("/d/{workspace}/{dataset}", Some("{workspace}/{dataset}")),
        route("/e", Some("{query.id}")),
        route("/f", Some("MY/CARS")),
        route("/g", None),
    ]);
    assert_eq!(table.grantable(), ["CORE/*", "MY/*", "MY/CARS"]);
}
