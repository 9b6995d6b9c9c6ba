//! `hearth check-config`: would `serve` start with this file?

use std::io::{self, Write};
use std::path::Path;

use router::TokenizerReport;
use router::story::story;

use crate::app;
use crate::config::Config;

/// Says whether `serve` would start with this file and this environment: `FILE: ok` on `out` and
/// status 0, or the complaint on `err` and status 2.
///
/// # Errors
/// Those of the writers.
pub fn check_config(
    file: &Path,
    env: impl IntoIterator<Item = (String, String)>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let loaded = match Config::load(Some(file), env, &[]) {
        Ok(loaded) => loaded,
        Err(error) => return writeln!(err, "{error}").map(|()| 2),
    };
    match app::check(&loaded.config) {
        Ok(tokenizers) => {
            let absent = tokenizers.iter().filter(|it| it.state != "ready");
            for TokenizerReport { model, source, .. } in absent {
                writeln!(
                    out,
                    "tokenizers: {model}: {source} is not on this machine; serve downloads it"
                )?;
            }
            writeln!(out, "{}: ok", file.display()).map(|()| 0)
        }
        Err(error) => writeln!(err, "{}: {}", file.display(), story(&error)).map(|()| 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_config_says_ok_or_why_not() {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let check = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).expect("it can be written");
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let status =
                check_config(&file, [], &mut out, &mut err).expect("vectors take everything");
            let text = |bytes| String::from_utf8(bytes).expect("it is text");
            (status, text(out), text(err))
        };
        let (status, out, err) = check("good.yaml", "endpoints: [http://a:1]\n");
        assert!(status == 0 && out.ends_with("good.yaml: ok\n") && err.is_empty(), "{out}{err}");
        let (status, out, err) = check("bad.yaml", "endpoint: []\n");
        assert!(status == 2 && out.is_empty() && err.contains("bad.yaml:1:1: "), "{out}{err}");
        assert!(err.contains("`endpoints`"), "{err}");
        for (text, named) in [
            ("tls: {listen: '127.0.0.1:1', cert: none.crt, key: none.key}", "tls.cert: none.crt: "),
            ("tokenizers: {tiny: nowhere}", "tokenizers: tiny: nowhere: "),
        ] {
            let (status, _, err) = check("missing.yaml", &format!("endpoints: ['a:1']\n{text}\n"));
            assert!(status == 2 && err.contains(named), "{err}");
            assert_eq!(err.matches("No such file").count(), 1, "{err}");
        }
    }
}
