use super::*;

fn token() -> Token {
    serde_json::from_value(json!({
        "id": "tok_1", "status": "active", "nickname": "App", "version": 3, "core_access": true, "domain_mode": "enforce",
        "datasets": [{"dataset": "MY/CARS", "operations": ["read"]}], "allowed_domains": ["a.test", "b.test"],
        "credit_limit": {"core": {"credits": 100, "period": "day"}, "premium": null},
        "rate_limit": {"requests_per_second": 5, "burst": 9}, "expires_at": "2027-01-02T03:04:05Z",
    }))
    .unwrap()
}

/// The form as a browser would post it, with some fields changed and some buttons pressed.
fn posted(changes: &[(&str, &str)]) -> Form {
    let unchanged = [
        ("version", "3"),
        ("nickname", "App"),
        ("core_access", "on"),
        ("grant", "MY/CARS read"),
        ("new-dataset", ""),
        ("new-operation", "read"),
        ("allowed_domains", "a.test\r\nb.test"),
        ("domain_mode", "enforce"),
        ("core-credits", "100"),
        ("core-period", "day"),
        ("premium-credits", ""),
        ("premium-period", "month"),
        ("rate", "5"),
        ("burst", "9"),
        ("expires", "2027-01-02T03:04:05"),
    ];
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in unchanged {
        match changes.iter().find(|(changed, _)| *changed == name) {
            Some((_, "<absent>")) => {}
            Some((_, value)) => drop(form.append_pair(name, value)),
            None => drop(form.append_pair(name, value)),
        }
    }
    for (name, value) in changes.iter().filter(|(name, _)| unchanged.iter().all(|(known, _)| known != name)) {
        form.append_pair(name, value);
    }
    Form::parse(form.finish().as_bytes())
}

#[test]
fn each_button_changes_its_part_and_nothing_else() {
    let table: &[(&[(&str, &str)], Value)] = &[
        (&[], json!({})),
        (&[("nickname", "New")], json!({"nickname": "New"})),
        (&[("nickname", "New"), ("action", "domains")], json!({})),
        (
            &[("core_access", "<absent>"), ("premium_access", "on")],
            json!({"core_access": false, "premium_access": true}),
        ),
        (&[("allowed_domains", " b.test  c.test ")], json!({"allowed_domains": ["b.test", "c.test"]})),
        (&[("allowed_domains", ""), ("action", "domains")], json!({"allowed_domains": []})),
        (&[("domain_mode", "report"), ("action", "domains")], json!({"domain_mode": "report"})),
        (&[("grant", "<absent>")], json!({"datasets": []})),
        (
            &[("new-dataset", "MY/BIKES"), ("action", "add-grant")],
            json!({"datasets": [{"dataset": "MY/CARS", "operations": ["read"]}, {"dataset": "MY/BIKES", "operations": ["read"]}]}),
        ),
        (
            &[("new-dataset", "my/cars"), ("new-operation", "write")],
            json!({"datasets": [{"dataset": "my/cars", "operations": ["write"]}]}),
        ),
        (&[("remove-grant", "MY/CARS")], json!({"datasets": []})),
        (
            &[("core-credits", "100,000")],
            json!({"credit_limit": {"core": {"credits": 100_000, "period": "day"}}}),
        ),
        (
            &[("core-credits", "many")],
            json!({"credit_limit": {"core": {"credits": "many", "period": "day"}}}),
        ),
        (&[("action", "remove-core")], json!({"credit_limit": {"core": null}})),
        (
            &[("premium-credits", "7"), ("action", "set-premium"), ("nickname", "New")],
            json!({"credit_limit": {"premium": {"credits": 7, "period": "month"}}}),
        ),
        (&[("rate", "6"), ("burst", "")], json!({"rate_limit": {"requests_per_second": 6}})),
        (&[("action", "remove-rate")], json!({"rate_limit": null})),
        (&[("expires", "2027-01-02T03:04")], json!({"expires_at": "2027-01-02T03:04:00Z"})),
        (&[("action", "remove-expiry")], json!({"expires_at": null})),
    ];
    for (changes, patch) in table {
        let form = posted(changes);
        let part = Part::pressed(&form);
        let mut entries = Entries::read(&form);
        let errors = entries.apply_button(&form, part);
        assert!(errors.is_empty(), "{changes:?}: {errors:?}");
        assert_eq!(&entries.patch(&token(), part), patch, "{changes:?}");
    }
}

#[test]
fn a_button_without_its_entry_says_what_is_missing() {
    let table: &[(&[(&str, &str)], &str)] = &[
        (&[("action", "add-grant")], "/datasets"),
        (&[("action", "add-grant"), ("new-dataset", "A/B"), ("new-operation", "<absent>")], "/datasets"),
        (&[("new-dataset", "A/B"), ("new-operation", "<absent>")], "/datasets"),
        (&[("action", "set-core"), ("core-credits", "")], "/credit_limit/core"),
        (&[("action", "set-premium")], "/credit_limit/premium"),
        (&[("action", "set-rate"), ("rate", "")], "/rate_limit"),
        (&[("action", "set-expiry"), ("expires", "")], "/expires_at"),
    ];
    for (changes, pointer) in table {
        let form = posted(changes);
        let errors = Entries::read(&form).apply_button(&form, Part::pressed(&form));
        assert_eq!(errors.first().map(|error| error.pointer.as_str()), Some(*pointer), "{changes:?}");
    }
}

#[test]
fn what_was_typed_elsewhere_stays_when_a_part_is_saved() {
    let form = posted(&[("nickname", "Typed"), ("allowed_domains", "c.test"), ("action", "domains")]);
    let mut entries = Entries::read(&form);
    let mut saved = token();
    saved.allowed_domains = vec!["c.test".to_owned()];
    saved.version = 4;
    entries.take_saved(&saved, Part::Domains);
    assert_eq!(
        (entries.nickname.as_str(), entries.domains.as_str(), entries.version),
        ("Typed", "c.test", Some(4))
    );
}
