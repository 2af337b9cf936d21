//! How the file is opened: only to be read, wherever it is.

use std::{fs, io::ErrorKind, os::unix::ffi::OsStrExt, path::Path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::ImportError;

/// What SQLite keeps beside a file while it is not all in there: what was written to it last, and what was there before that.
const BESIDE: [&str; 2] = ["-wal", "-journal"];

/// What stays as it is in the path of a URI.
const OF_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/');

/// Opens a file, and begins to read it: whoever writes to it meanwhile does not change what is read here.
///
/// SQLite reads a file in WAL mode with the help of another beside it, which it may have to make. Where it can't, as on storage that is only
/// read, the file is read as one that nobody changes, if all of it is in there.
pub(super) fn open(path: &Path) -> Result<Connection, ImportError> {
    let fail = |cause: String| ImportError::Open { file: path.to_owned(), cause };
    let error = match begin(path, OpenFlags::empty()) {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    if !matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)) {
        return Err(fail(error.to_string()));
    }
    if let Some(beside) = BESIDE.into_iter().find(|beside| is_there(path, beside)) {
        return Err(ImportError::Unread { file: path.to_owned(), beside });
    }
    let uri = format!("file:{}?immutable=1", percent_encode(path.as_os_str().as_bytes(), OF_PATHS));
    begin(Path::new(&uri), OpenFlags::SQLITE_OPEN_URI).map_err(|_| fail(error.to_string()))
}

fn begin(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | flags)?;
    connection.execute_batch("BEGIN")?;
    // The first read is the one that needs what is beside it.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Whether there is something in the file beside this one. If that can't be seen, there may be.
fn is_there(path: &Path, beside: &str) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push(beside);
    match fs::metadata(name) {
        Ok(file) => file.len() > 0,
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}
