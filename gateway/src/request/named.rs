//! The model that a request names whose body is not read for its prompt.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Uri, header};
use multer::Multipart;

/// Longest name of a model that is looked at.
const MAX_MODEL_BYTES: usize = 1024;

/// A form is read in pieces of this size, so that of an upload no second copy is made.
const PIECE_BYTES: usize = 64 << 10;

/// The field `model` of a multipart form, the last one if there are several, as Starlette reads it.
/// A form that cannot be read has none: the pod will say what is wrong with it.
pub(crate) async fn model_of_form(headers: &HeaderMap, body: &Bytes) -> Option<String> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multer::parse_boundary(content_type).ok()?;
    let pieces = (0..body.len()).step_by(PIECE_BYTES).map(|start| {
        let end = body.len().min(start + PIECE_BYTES);
        Ok::<_, std::convert::Infallible>(body.slice(start..end))
    });
    let mut form = Multipart::new(stream::iter(pieces), boundary);
    let mut model = None;
    while let Some(mut field) = form.next_field().await.ok()? {
        if field.name() != Some("model") {
            continue;
        }
        let mut name = Vec::new();
        while let Some(piece) = field.chunk().await.ok()? {
            name.extend_from_slice(&piece[..piece.len().min(MAX_MODEL_BYTES)]);
            name.truncate(MAX_MODEL_BYTES);
        }
        model = String::from_utf8(name).ok();
    }
    model
}

pub(crate) fn model_of_query(uri: &Uri) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.filter(|(name, _)| name == "model").last().map(|(_, model)| model.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(model: &str) -> String {
        format!(
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n{}\r\n\
             --b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b--\r\n",
            "name=\"model\"\r\n\r\nother".repeat(10_000),
        )
    }

    async fn model(content_type: &str, body: String) -> Option<String> {
        let content_type = content_type.parse().unwrap();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
        model_of_form(&headers, &Bytes::from(body)).await
    }

    #[tokio::test]
    async fn a_forms_model_is_found_behind_its_file() {
        let multipart = "multipart/form-data; boundary=b";
        assert_eq!(model(multipart, form("whisper")).await.as_deref(), Some("whisper"));
        assert_eq!(model(multipart, "--b\r\nnonsense".to_owned()).await, None);
        assert_eq!(model("application/json", form("whisper")).await, None);
    }

    #[test]
    fn a_querys_model_is_decoded() {
        let uri = Uri::from_static("/v1/realtime?a=b&model=meta%2Dllama/a+b");
        assert_eq!(model_of_query(&uri).as_deref(), Some("meta-llama/a b"));
    }
}
