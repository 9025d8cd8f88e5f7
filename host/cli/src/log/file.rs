//! File of the access log. It is opened again on SIGUSR1, and after each failed write until that succeeds.

use super::queue::{Destination, count_lines, write_all};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Whether the file ends in the middle of a line, because a disk was full.
    is_mid_line: bool,
    /// Lines lost since the last success. `None` if the last write succeeded.
    lost_lines: Option<u64>,
}

impl LogFile {
    /// Opens a file, or creates it with mode 0640.
    ///
    /// # Errors
    /// As `open(2)`. A named pipe that nobody reads fails, so that the server does not wait for a reader.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(LogFile {
            file: open(path)?,
            path: path.to_owned(),
            is_mid_line: false,
            lost_lines: None,
        })
    }

    /// Replaces the file by the one that has the path now.
    fn replace(&mut self) -> io::Result<()> {
        let file = open(&self.path)?;
        if file.metadata()?.len() == 0 {
            self.is_mid_line = false;
        }
        self.file = file;
        Ok(())
    }

    /// Writes lines, after the end of a line that was cut. Returns the number of bytes of the lines that were written.
    fn append(&mut self, lines: &[u8]) -> (usize, Option<io::Error>) {
        if self.is_mid_line {
            let (written, error) = write_all(&mut self.file, b"\n");
            self.is_mid_line = written == 0;
            if error.is_some() {
                return (0, error);
            }
        }
        let (written, error) = write_all(&mut self.file, lines);
        if let Some(last) = written.checked_sub(1) {
            self.is_mid_line = lines[last] != b'\n';
        }
        (written, error)
    }
}

impl Destination for LogFile {
    fn write_lines(&mut self, lines: &[u8]) -> u64 {
        // The file may have gone with its file system, and another one may be there now.
        let replaced = match self.lost_lines {
            Some(_) => self.replace(),
            None => Ok(()),
        };
        let (written, error) = match replaced {
            Ok(()) => self.append(lines),
            Err(error) => (0, Some(error)),
        };
        let path = self.path.display();
        let lost = count_lines(&lines[written..]);
        match (error, self.lost_lines) {
            (None, None) => {}
            (None, Some(lost)) => {
                tracing::info!("access log {path} is written again; {lost} lines are lost");
                self.lost_lines = None;
            }
            (Some(_), Some(before)) => self.lost_lines = Some(before + lost),
            (Some(error), None) => {
                tracing::error!(
                    "cannot write access log {path}: {error}; lines are lost until it can be written"
                );
                self.lost_lines = Some(lost);
            }
        }
        lost
    }

    fn reopen(&mut self) {
        let replaced = self.replace();
        let path = self.path.display();
        match replaced {
            Ok(()) => tracing::info!("SIGUSR1: access log {path} reopened"),
            Err(error) => tracing::error!(
                "SIGUSR1: cannot open access log {path}: {error}; the previous file stays in use"
            ),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        use std::os::unix::fs::OpenOptionsExt;
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = options.mode(0o640).custom_flags(nonblocking).open(path)?;
        // Only the open must not wait for a reader. The thread that writes may.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines_are_appended_and_a_rotation_begins_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
        fs::write(&path, "before\n").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(log.write_lines(b"one\n"), 0);
        fs::rename(&path, &moved).unwrap();
        assert_eq!(log.write_lines(b"two\n"), 0);
        log.reopen();
        assert_eq!(log.write_lines(b"three\n"), 0);
        assert_eq!(fs::read_to_string(moved).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_folder_that_is_gone_loses_no_line_at_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let mut log = LogFile::open(&logs.join("a.log")).unwrap();
        let moved = folder.path().join("moved");
        fs::rename(&logs, &moved).unwrap();
        log.reopen();
        assert_eq!(log.write_lines(b"one\n"), 0);
        assert_eq!(fs::read_to_string(moved.join("a.log")).unwrap(), "one\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted_and_it_recovers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(log.write_lines(b"one\ntwo\n"), 2);
        assert_eq!(log.write_lines(b"three\n"), 1);
        assert_eq!(log.lost_lines, Some(3));
        fs::remove_file(&path).unwrap();
        assert_eq!(log.write_lines(b"four\n"), 0);
        assert_eq!(log.lost_lines, None);
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    }

    #[test]
    fn a_line_that_was_cut_has_its_end_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut log = LogFile::open(&path).unwrap();
        // As on a disk that was full in the middle of a line.
        assert_eq!(log.append(b"on").0, 2);
        assert!(log.is_mid_line);
        assert_eq!(log.write_lines(b"two\n"), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "on\ntwo\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_no_reason_to_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(LogFile::open(&path).is_err());
    }
}
