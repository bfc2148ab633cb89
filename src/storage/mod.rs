//! Keeps delivered images where the operator says: a folder, or an object store. Nothing that is kept ever changes.

mod links;

use std::fmt;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use url::Url;

pub use links::{LinkError, Links};

/// How a kept file is written in the books in place of an address: this, and its name.
pub const KEPT: &str = "kept:";
/// Every kind of file that is kept: the end of its name, and its MIME type.
const KINDS: &[(&str, &str)] = &[
    ("jpg", "image/jpeg"),
    ("png", "image/png"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("avif", "image/avif"),
    ("svg", "image/svg+xml"),
    ("bin", "application/octet-stream"),
];

/// Why a file is not kept, or cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The address of the place, or its credentials.
    #[error("the storage cannot be opened: {0}")]
    Open(String),
    /// There is no such file.
    #[error("there is no such file")]
    NotFound,
    /// The place does not answer as it should.
    #[error("the storage fails: {0}")]
    Unavailable(String),
}

impl From<object_store::Error> for StorageError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A file, or a part of it, as it is sent.
pub struct Piece {
    /// The bytes.
    pub body: BoxStream<'static, Result<Bytes, StorageError>>,
    /// The size of the whole file, in bytes.
    pub size: u64,
}

/// Where images are kept.
pub struct Storage {
    store: Box<dyn ObjectStore>,
    root: Path,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Storage({})", self.store)
    }
}

impl Storage {
    /// Opens `file:///folder`, `s3://bucket/prefix`, `gs://…` or `az://…`; `options` are the cloud's own settings by their
    /// usual names, such as `AWS_ACCESS_KEY_ID`. Nobody is called yet.
    pub fn open(url: &Url, options: &[(String, String)]) -> Result<Self, StorageError> {
        let options = options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let (store, root) =
            object_store::parse_url_opts(url, options).map_err(|error| StorageError::Open(error.to_string()))?;
        Ok(Self { store, root })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.root.clone(), Path::join)
    }

    /// Keeps a file under a name; the same name again is the same file again.
    pub async fn keep(&self, name: &str, bytes: Bytes) -> Result<(), StorageError> {
        self.store.put(&self.path(name), bytes.into()).await?;
        Ok(())
    }

    /// Removes all files whose names begin with this folder; none is fine.
    pub async fn remove_folder(&self, folder: &str) -> Result<(), StorageError> {
        let found = self.store.list(Some(&self.path(folder))).map_ok(|file| file.location).boxed();
        let removed = self.store.delete_stream(found).try_for_each(|_| async { Ok(()) }).await;
        match removed {
            // Somebody else has removed it meanwhile.
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A whole file.
    pub async fn read(&self, name: &str) -> Result<Bytes, StorageError> {
        Ok(self.store.get(&self.path(name)).await?.bytes().await?)
    }

    /// The size of a file, in bytes.
    pub async fn size(&self, name: &str) -> Result<u64, StorageError> {
        Ok(self.store.head(&self.path(name)).await?.size)
    }

    /// A file to be sent on, from the first byte of `range` to the last one, or all of it.
    pub async fn open_file(&self, name: &str, range: Option<(u64, u64)>) -> Result<Piece, StorageError> {
        let range = range.map(|(first, last)| GetRange::Bounded(first..last + 1));
        let found = self.store.get_opts(&self.path(name), GetOptions { range, ..GetOptions::default() }).await?;
        let size = found.meta.size;
        Ok(Piece { body: found.into_stream().map_err(StorageError::from).boxed(), size })
    }
}

/// The name of a generation's image: by what it is said to be, else by what its bytes are.
#[must_use]
pub fn file_name(generation: &str, index: usize, content_type: Option<&str>, bytes: &[u8]) -> String {
    let by_type = |kind: &str| KINDS.iter().find(|(_, known)| *known == kind).map(|(end, _)| *end);
    let by_content = || image::guess_format(bytes).ok().and_then(|format| by_type(format.to_mime_type()));
    let end = content_type.and_then(by_type).or_else(by_content).unwrap_or("bin");
    format!("{generation}/{index}.{end}")
}

/// The MIME type that the end of a name stands for.
#[must_use]
pub fn content_type(name: &str) -> &'static str {
    let end = name.rsplit('.').next().unwrap_or_default();
    KINDS.iter().find(|(known, _)| *known == end).map_or("application/octet-stream", |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_what_it_is() {
        let png = b"\x89PNG\r\n\x1a\n";
        assert_eq!(file_name("g", 0, Some("image/webp"), png), "g/0.webp");
        assert_eq!(file_name("g", 1, None, png), "g/1.png");
        assert_eq!(file_name("g", 2, Some("text/html"), b"<script>"), "g/2.bin");
        assert_eq!(content_type("g/0.svg"), "image/svg+xml");
        assert_eq!(content_type("g/2.bin"), "application/octet-stream");
    }

    #[tokio::test]
    async fn a_folder_keeps_files_and_gives_parts_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path().join("not yet there")).unwrap();
        let storage = Storage::open(&url, &[]).unwrap();
        assert!(matches!(storage.read("g/0.png").await, Err(StorageError::NotFound)));
        storage.keep("g/0.png", Bytes::from_static(b"0123456789")).await.unwrap();
        storage.keep("g/0.png", Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(storage.read("g/0.png").await.unwrap(), "0123456789");
        assert_eq!(storage.size("g/0.png").await.unwrap(), 10);
        let piece = storage.open_file("g/0.png", Some((2, 4))).await.unwrap();
        let bytes: Vec<Bytes> = piece.body.try_collect().await.unwrap();
        assert_eq!((bytes.concat().as_slice(), piece.size), (b"234".as_slice(), 10));
        storage.keep("g/1.png", Bytes::from_static(b"1")).await.unwrap();
        storage.keep("g1/0.png", Bytes::from_static(b"another's")).await.unwrap();
        for _ in 0..2 {
            storage.remove_folder("g").await.unwrap();
        }
        for gone in ["g/0.png", "g/1.png"] {
            assert!(matches!(storage.read(gone).await, Err(StorageError::NotFound)));
        }
        assert_eq!(storage.read("g1/0.png").await.unwrap(), "another's");
        // No name leads out of the folder.
        assert!(matches!(storage.read("../../etc/passwd").await, Err(StorageError::NotFound)));
        for url in ["ftp://x/y", "file://relative/x"] {
            assert!(Storage::open(&Url::parse(url).unwrap(), &[]).is_err(), "{url}");
        }
    }
}
