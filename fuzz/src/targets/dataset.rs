//! Any text as a data set's name and as a grant: what is read keeps its text, and grants nothing else.

use crate::policy::dataset::{DatasetId, Grant, Operation};

/// Checks one input.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(id) = DatasetId::parse(text) {
        assert!(!id.workspace().contains('/') && !id.dataset().contains('/'));
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b',' | b'\\')));
        assert_eq!(DatasetId::parse(id.as_str()).as_ref(), Some(&id));
    }
    let Ok(grant) = Grant::parse(text) else { return };
    let stranger = DatasetId::parse("STRANGER/FUZZ").expect("a name");
    let named = grant.dataset();
    for operation in [Operation::Read, Operation::Write, Operation::Delete] {
        let allows = grant.allows(&stranger, operation);
        assert!(!allows || named.to_ascii_uppercase().starts_with("STRANGER/"), "{text}");
        assert!(!allows || grant.operations().contains(operation));
    }
    let operations: Vec<&str> = grant.operations().iter().map(Operation::as_str).collect();
    assert_eq!(Grant::new(&named, operations).as_ref(), Ok(&grant), "{text}");
}
