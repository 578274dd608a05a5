//! Files that commands read, or standard input; above all the organisation document.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::charging::profile::TenantDocument;
use crate::organisation::{self, MAX_BYTES, RawOrganisation};

/// A document that is right.
#[derive(Debug)]
pub struct Loaded {
    /// As it is written, to be sent.
    pub raw: RawOrganisation,
    /// As it is understood.
    pub tenants: Vec<TenantDocument>,
}

/// Reads and checks the document in `file` (`-` is standard input). Every problem names the file.
pub fn load(file: &Path) -> Result<Loaded, Vec<String>> {
    let yaml = read_text(file).map_err(|error| vec![format!("{}: {error}", file.display())])?;
    let checked = organisation::read(&yaml).and_then(|raw| {
        let tenants = organisation::check(&raw)?;
        Ok(Loaded { raw, tenants })
    });
    checked.map_err(|faults| {
        faults.iter().map(|fault| format!("{}: {fault}", file.display())).collect()
    })
}

fn read_text(file: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(file, MAX_BYTES)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "expected UTF-8"))
}

/// The contents of `file` (`-` is standard input). One byte above the limit is read, so that a larger
/// file is refused and an endless one is not read.
pub fn read_bytes(file: &Path, max: usize) -> io::Result<Vec<u8>> {
    let source: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(file)?) };
    let mut bytes = Vec::new();
    source.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_right_and_problems_name_the_file() {
        let loaded = load(Path::new("samples/organisation.yaml")).expect("the sample is right");
        assert_eq!(loaded.tenants.len(), loaded.raw.tenants.len());

        let problems = load(Path::new("no/such.yaml")).expect_err("there is no such file");
        assert!(problems[0].starts_with("no/such.yaml: "), "{problems:?}");

        let problems = load(Path::new("Cargo.toml")).expect_err("it is no document");
        assert!(problems[0].starts_with("Cargo.toml: line 1: "), "{problems:?}");
    }
}
