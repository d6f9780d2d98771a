//! Notices that the configuration's files have changed.
//!
//! They are looked at now and then rather than watched by the system: that sees editors that replace a file, and the
//! symbolic links by which Kubernetes swaps a whole `ConfigMap`, and works on network file systems, too. A change is told
//! only when the files have rested, so that what is still being written is seldom read; if it is, it is refused and looked at
//! again with the next change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the files are looked at.
pub(super) const EVERY: Duration = Duration::from_millis(500);

/// What tells one state of a file from another, its links followed; `None`: it is not there.
type Print = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

fn print(path: &Path) -> Print {
    let found = fs::metadata(path).ok()?;
    let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Some((found.dev(), found.ino(), found.len(), modified, changed))
}

/// The files, as they were when they were last read.
pub(super) struct Files {
    files: Vec<(PathBuf, Print)>,
    /// How they were a moment ago, if that is not how they were read.
    moving: Option<Vec<Print>>,
}

impl Files {
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let files = paths.into_iter().map(|path| (print(&path), path)).map(|(print, path)| (path, print));
        Self { files: files.collect(), moving: None }
    }

    fn now(&self) -> Vec<Print> {
        self.files.iter().map(|(path, _)| print(path)).collect()
    }

    /// Whether they are to be read anew: they have changed, and rest.
    pub(super) fn have_changed(&mut self) -> bool {
        let now = self.now();
        if self.files.iter().map(|(_, read)| read).eq(now.iter()) {
            self.moving = None;
            return false;
        }
        let rests = self.moving.as_ref() == Some(&now);
        self.moving = Some(now);
        rests
    }

    /// They are about to be read as they are now, whatever comes of it.
    pub(super) fn mark_read(&mut self) {
        for ((_, read), now) in self.files.iter_mut().zip(self.moving.take().unwrap_or_default()) {
            *read = now;
        }
        for (path, read) in &mut self.files {
            *read = print(path);
        }
    }

    /// Looks at other files from now on; those known already stay as they were read.
    pub(super) fn look_at(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let known = std::mem::take(&mut self.files);
        let of = |path: PathBuf| {
            let read = known.iter().find(|(known, _)| *known == path).map(|(_, read)| *read);
            let read = read.unwrap_or_else(|| print(&path));
            (path, read)
        };
        self.files = paths.into_iter().map(of).collect();
        self.moving = None;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Whether a change is told once the files rest.
    fn tells(files: &mut Files) -> bool {
        let early = files.have_changed();
        assert!(!early, "told at once, while it may be half written");
        let told = files.have_changed();
        files.mark_read();
        assert!(!files.have_changed() && !files.have_changed(), "told twice");
        told
    }

    #[test]
    fn sees_writes_replacements_removals_and_swapped_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("proxy.yaml"), text).unwrap();
        }
        // As Kubernetes lays out a ConfigMap: the file is a link through a link to a folder.
        symlink(at("v1"), at("..data")).unwrap();
        symlink(at("..data").join("proxy.yaml"), at("proxy.yaml")).unwrap();
        fs::write(at("secret"), "s").unwrap();
        let mut files = Files::new([at("proxy.yaml"), at("secret"), at("absent")]);
        assert!(!tells(&mut files), "nothing has changed");

        symlink(at("v2"), at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert!(tells(&mut files), "a swapped link");

        fs::write(at("v2").join("proxy.yaml"), "two!").unwrap();
        assert!(tells(&mut files), "a write in place");

        // As editors save: a new file under another name, then renamed. Even with the same length.
        fs::write(at("secret.new"), "t").unwrap();
        fs::rename(at("secret.new"), at("secret")).unwrap();
        assert!(tells(&mut files), "a replaced file");

        fs::write(at("absent"), "").unwrap();
        assert!(tells(&mut files), "a file that was not there");
        fs::remove_file(at("absent")).unwrap();
        assert!(tells(&mut files), "a file that is gone");
        assert!(!tells(&mut files));
    }

    #[test]
    fn waits_while_a_file_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.yaml");
        fs::write(&path, "").unwrap();
        let mut files = Files::new([path.clone()]);
        for length in 1..5 {
            fs::write(&path, "x".repeat(length)).unwrap();
            assert!(!files.have_changed(), "still growing");
        }
        assert!(files.have_changed());
    }
}
