//! How a command's end is told on the error stream.

use serde::Serialize;

use crate::runtime::StreamError;

/// How a protocol's version wants it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusFormat {
    /// Nothing when all is well, else a text: versions 1 to 3.
    Text,
    /// A `Status` of Kubernetes' meta/v1, in JSON: since version 4.
    Json,
}

#[derive(Serialize)]
struct Status<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'a str,
    message: &'a str,
}

impl StatusFormat {
    /// What is written on the error stream when a call has ended so.
    pub(crate) fn message(self, outcome: &Result<u32, StreamError>) -> Vec<u8> {
        let text = match outcome {
            Ok(0) => None,
            Ok(code) => Some(format!("command terminated with non-zero exit code: {code}")),
            Err(error) => Some(format!("Internal error occurred: {error}")),
        };
        if self == Self::Text {
            return text.unwrap_or_default().into_bytes();
        }
        let message = text.as_deref();
        let status = match outcome {
            Ok(0) => Status { status: "Success", reason: None, message, details: None, code: None },
            Ok(code) => {
                let code = code.to_string();
                let details = Details { causes: [Cause { reason: "ExitCode", message: &code }] };
                let reason = Some("NonZeroExitCode");
                return json(&Status { status: "Failure", reason, message, details: Some(details), code: None });
            }
            Err(_) => {
                let reason = Some("InternalError");
                Status { status: "Failure", reason, message, details: None, code: Some(500) }
            }
        };
        json(&status)
    }
}

fn json(status: &Status<'_>) -> Vec<u8> {
    // Serialising strings and numbers into memory does not fail.
    serde_json::to_vec(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(outcome: Result<u32, StreamError>) -> String {
        String::from_utf8(StatusFormat::Json.message(&outcome)).unwrap()
    }

    #[test]
    fn a_status_is_what_kubernetes_clients_read() {
        assert_eq!(json_of(Ok(0)), r#"{"status":"Success"}"#);
        assert_eq!(
            json_of(Ok(7)),
            r#"{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code: 7","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#
        );
        assert_eq!(
            json_of(Err(StreamError::new("no such \"thing\""))),
            r#"{"status":"Failure","reason":"InternalError","message":"Internal error occurred: no such \"thing\"","code":500}"#
        );
    }

    #[test]
    fn older_protocols_have_plain_text_and_silence_for_success() {
        assert_eq!(StatusFormat::Text.message(&Ok(0)), b"");
        assert_eq!(StatusFormat::Text.message(&Ok(7)), b"command terminated with non-zero exit code: 7");
    }
}
