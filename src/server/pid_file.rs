//! The file that holds the id of the process which serves, for scripts: `kill -HUP "$(cat FILE)"`.

use std::fs;
use std::io;
use std::path::PathBuf;

/// The file. It goes when the process ends, unless another process has written itself there meanwhile.
pub(super) struct PidFile {
    path: PathBuf,
    text: String,
}

impl PidFile {
    /// Writes it, whole or not at all.
    pub(super) fn write(path: PathBuf) -> io::Result<Self> {
        let text = format!("{}\n", std::process::id());
        let draft = path.with_extension("new");
        fs::write(&draft, &text)?;
        fs::rename(&draft, &path)?;
        Ok(Self { path, text })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
