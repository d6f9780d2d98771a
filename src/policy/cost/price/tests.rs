use proptest::prelude::*;

use super::*;

fn form(credits: u64) -> Form {
    Form { credits: Credits(credits), ..Form::default() }
}

fn price(form: Form) -> Price {
    Price::new(form).expect("a price")
}

fn seen(bytes: u64, units: u64) -> Seen {
    Seen { bytes, units }
}

const HEADER: Option<HeaderName> = Some(HeaderName::from_static("x-price"));

#[test]
fn charges_each_form_by_its_words() {
    let items = price(Form { per_item: true, ..form(2) });
    let kilobytes = price(Form { per_kilobyte: Some(Credits(3)), ..form(0) });
    let records = price(Form { per_record: Some(Credits(4)), ..form(1) });
    let events = price(Form { per_event: Some(Credits(5)), ..form(0) });
    let capped = price(Form {
        per_record: Some(Credits(4)),
        per_kilobyte: Some(Credits(1)),
        max_credits: Some(Credits(10)),
        ..form(1)
    });
    let header = price(Form { from_header: HEADER, max_credits: Some(Credits(50)), ..form(7) });
    let cases = [
        (&Price::flat(Credits(5)), 9, BodyKind::Json, None, seen(9_000, 9), 5),
        (&items, 0, BodyKind::Json, None, seen(1, 1), 2),
        (&items, 3, BodyKind::Json, None, seen(1, 1), 6),
        (&items, u64::MAX, BodyKind::Json, None, seen(0, 0), MAX_CREDITS),
        (&kilobytes, 1, BodyKind::Opaque, None, seen(0, 0), 0),
        (&kilobytes, 1, BodyKind::Opaque, None, seen(1, 1), 3),
        (&kilobytes, 1, BodyKind::Opaque, None, seen(1_000, 1), 3),
        (&kilobytes, 1, BodyKind::Opaque, None, seen(1_001, 1), 6),
        (&kilobytes, 1, BodyKind::Opaque, None, seen(u64::MAX, 1), MAX_CREDITS),
        (&records, 1, BodyKind::Json, None, seen(10, 6), 25),
        (&records, 1, BodyKind::Lines, None, seen(10, 6), 25),
        (&records, 1, BodyKind::Opaque, None, seen(10, 1), 5),
        (&records, 1, BodyKind::Events, None, seen(10, 2), 9),
        (&records, 1, BodyKind::Empty, None, seen(0, 0), 1),
        (&records, 1, BodyKind::Json, None, seen(10, u64::MAX), MAX_CREDITS),
        (&events, 1, BodyKind::Events, None, seen(10, 6), 30),
        (&events, 1, BodyKind::Frames, None, seen(10, 6), 30),
        (&events, 1, BodyKind::Lines, None, seen(10, 6), 30),
        (&events, 1, BodyKind::Json, None, seen(10, 6), 0),
        (&capped, 1, BodyKind::Json, None, seen(1_000, 1), 6),
        (&capped, 1, BodyKind::Json, None, seen(2_000, 2), 10),
        (&header, 1, BodyKind::Json, None, seen(9_999, 9), 7),
        (&header, 1, BodyKind::Json, Some(Credits(0)), seen(9_999, 9), 0),
        (&header, 1, BodyKind::Json, Some(Credits(50)), seen(9_999, 9), 50),
        (&header, 1, BodyKind::Json, Some(Credits(51)), seen(9_999, 9), 50),
        // A header that the route does not ask for says nothing.
        (&records, 1, BodyKind::Json, Some(Credits(99)), seen(10, 1), 5),
    ];
    for (price, items, kind, stated, seen, expected) in cases {
        let told = price.rates(items, kind, stated).of(seen);
        assert_eq!(told, Credits(expected), "{price}; {items} items, {kind:?}, {stated:?}, {seen:?}");
    }
}

#[test]
fn holds_what_may_be_needed() {
    let cases = [
        (form(5), 1, 5, Rest::Nothing),
        (form(0), 1, 0, Rest::Nothing),
        (Form { per_item: true, ..form(2) }, 10, 20, Rest::Nothing),
        (Form { per_item: true, max_credits: Some(Credits(15)), ..form(2) }, 10, 15, Rest::Nothing),
        (Form { per_record: Some(Credits(1)), ..form(0) }, 1, 1, Rest::Drawn),
        (
            Form { per_record: Some(Credits(1)), max_credits: Some(Credits(9)), ..form(0) },
            1,
            9,
            Rest::Returned,
        ),
        (Form { per_kilobyte: Some(Credits(2)), per_record: Some(Credits(3)), ..form(4) }, 1, 9, Rest::Drawn),
        (Form { per_event: Some(Credits(3)), ..form(4) }, 1, 7, Rest::Drawn),
        (Form { per_event: Some(Credits(3)), max_credits: Some(Credits(900)), ..form(4) }, 1, 7, Rest::Drawn),
        (Form { per_event: Some(Credits(3)), max_credits: Some(Credits(5)), ..form(4) }, 1, 5, Rest::Drawn),
        (
            Form {
                per_event: Some(Credits(3)),
                per_record: Some(Credits(1)),
                max_credits: Some(Credits(900)),
                ..form(4)
            },
            1,
            900,
            Rest::Returned,
        ),
        (Form { from_header: HEADER, ..form(0) }, 1, 1, Rest::Drawn),
        (Form { from_header: HEADER, ..form(6) }, 1, 6, Rest::Drawn),
        (Form { from_header: HEADER, max_credits: Some(Credits(100)), ..form(6) }, 1, 100, Rest::Returned),
    ];
    for (form, items, credits, rest) in cases {
        let price = price(form);
        assert_eq!(price.hold(items), Hold { credits: Credits(credits), rest }, "{price}");
    }
}

#[test]
fn refuses_parts_that_do_not_go_together() {
    let content_length = Some(HeaderName::from_static("content-length"));
    let cases = [
        (Form { from_header: HEADER, per_record: Some(Credits(1)), ..form(1) }, "per_record"),
        (Form { from_header: HEADER, per_item: true, ..form(1) }, "per_item"),
        (Form { from_header: content_length, ..form(1) }, "from_header"),
        (Form { per_event: Some(Credits(0)), ..form(1) }, "per_event"),
        (Form { per_kilobyte: Some(Credits(1)), max_credits: Some(Credits(0)), ..form(0) }, "max_credits"),
        (Form { per_item: true, ..form(0) }, "per_item"),
        (Form { max_credits: Some(Credits(5)), ..form(1) }, "max_credits"),
        (Form { per_record: Some(Credits(1)), max_credits: Some(Credits(5)), ..form(6) }, "max_credits"),
    ];
    for (form, key) in cases {
        let told = Price::new(form.clone()).map_err(|why| why.key());
        assert_eq!(told, Err(key), "{form:?}");
    }
}

#[test]
fn reads_what_the_upstream_says() {
    let cases: [(&[&[u8]], Option<u64>); 12] = [
        (&[], None),
        (&[b"0"], Some(0)),
        (&[b" 17\t"], Some(17)),
        (&[b"9007199254740991"], Some(MAX_CREDITS)),
        (&[b"9007199254740992"], None),
        (&[b"99999999999999999999"], None),
        (&[b""], None),
        (&[b"+1"], None),
        (&[b"-1"], None),
        (&[b"1.5"], None),
        (&[b"\xff"], None),
        (&[b"1", b"1"], None),
    ];
    for (values, expected) in cases {
        assert_eq!(Price::parse_header(values.iter().copied()), expected.map(Credits), "{values:?}");
    }
}

#[test]
fn tells_the_formula_in_words() {
    let all = Form {
        per_kilobyte: Some(Credits(2)),
        per_record: Some(Credits(3)),
        per_event: Some(Credits(4)),
        max_credits: Some(Credits(50)),
        ..form(1)
    };
    let cases = [
        (form(5), "5"),
        (Form { per_item: true, ..form(2) }, "2 for each item"),
        (all, "1 + 2 for each kilobyte + 3 for each record + 4 for each event, at most 50"),
        (Form { from_header: HEADER, ..form(1) }, "what the response header x-price says, else 1"),
    ];
    for (form, expected) in cases {
        assert_eq!(price(form).to_string(), expected);
    }
}

fn forms() -> impl Strategy<Value = Form> {
    let rate = || proptest::option::of((1..=MAX_CREDITS).prop_map(Credits));
    let parts = (0..=MAX_CREDITS, any::<bool>(), rate(), rate(), rate(), any::<bool>(), rate());
    parts.prop_map(|(credits, per_item, per_kilobyte, per_record, per_event, stated, max_credits)| Form {
        credits: Credits(credits),
        per_item,
        per_kilobyte,
        per_record,
        per_event,
        from_header: HEADER.filter(|_| stated),
        max_credits,
    })
}

proptest! {
    #[test]
    fn never_costs_more_than_its_bound_and_never_less_for_more(
        form in forms(), items: u64, bytes: u64, units: u64, more in 0..u64::MAX, stated in proptest::option::of(0..=MAX_CREDITS),
    ) {
        let Ok(price) = Price::new(form) else { return Ok(()) };
        let hold = price.hold(items);
        let bound = price.form().max_credits.map_or(MAX_CREDITS, |max| max.0);
        assert!(hold.credits.0 <= bound);
        for kind in BodyKind::ALL {
            let rates = price.rates(items, kind, stated.map(Credits));
            let cost = rates.of(seen(bytes, units));
            assert!(cost.0 <= bound);
            assert!(cost <= rates.of(seen(bytes.saturating_add(more), units)));
            assert!(cost <= rates.of(seen(bytes, units.saturating_add(more))));
            match hold.rest {
                Rest::Nothing => assert_eq!(cost, hold.credits),
                Rest::Returned => assert!(cost <= hold.credits),
                Rest::Drawn => {}
            }
        }
    }
}
