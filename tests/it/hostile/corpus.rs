//! What fuzzing found, replayed on a stable toolchain: every seed and every kept input goes through its target again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn inputs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let read =
        |entry: fs::DirEntry| (entry.path().display().to_string(), fs::read(entry.path()).expect("an input"));
    entries.map(|entry| read(entry.expect("an entry"))).collect()
}

#[test]
fn whatever_fuzzing_ever_found_holds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut bytes = 0;
    for (target, check) in tollgate_fuzz::targets::ALL {
        let mut count = 0;
        for folder in ["seeds", "corpus"] {
            for (path, input) in inputs(&fuzz.join(folder).join(target)) {
                // Said on failure: which input it was.
                println!("{path}");
                check(&input);
                count += 1;
                bytes += input.len();
            }
        }
        assert!(count > 0, "the target {target} has no inputs");
    }
    assert!(bytes < 1 << 20, "the corpus has grown to {bytes} bytes: minimise it (scripts/fuzz --keep)");
}

#[test]
fn each_target_is_built_by_the_fuzzer_too_and_no_corpus_lies_idle() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz.join(folder)).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.map(|name| name.trim_end_matches(".rs").to_owned()).collect()
    };
    let known: BTreeSet<String> =
        tollgate_fuzz::targets::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("a manifest");
    assert_eq!(names("fuzz_targets"), known);
    assert!(known.iter().all(|name| manifest.contains(&format!("\"fuzz_targets/{name}.rs\""))));
    assert!(names("seeds").is_subset(&known) && names("corpus").is_subset(&known));
}
