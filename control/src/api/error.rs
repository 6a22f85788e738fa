//! Errors as the ecosystem's clients expect them.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use control_core::api::ApiError;
use control_store::StoreError;
use serde_json::json;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) code: u32,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn not_found(path: &str) -> Self {
        Self::new(404, 20_404, format!("The requested resource {path} was not found"))
    }

    /// A parameter with a value that cannot be taken.
    pub(super) fn parameter(message: impl Into<String>) -> Self {
        Self::new(400, 20_422, message)
    }

    /// The credentials are right, but not for this.
    pub(super) fn forbidden(message: &str) -> Self {
        Self::new(403, 20_006, message)
    }

    pub(super) fn unauthorised() -> Self {
        Self::new(401, 20_003, "Authenticate")
    }

    pub(super) fn method() -> Self {
        Self::new(405, 20_004, "Method not allowed")
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "REST API");
        Self::new(500, 20_500, "An internal server error has occurred")
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::QueueFull => Self::new(429, 20_429, "Too many requests; try again"),
            // The store tells the log.
            StoreError::DiskFull | StoreError::Closed => {
                Self::new(503, 20_503, "Nothing can be written at present; try again later")
            }
            other => Self::internal(other),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(error.status, error.code, error.message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Json(json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.status,
        }));
        if status == StatusCode::UNAUTHORIZED {
            let realm = [(header::WWW_AUTHENTICATE, "Basic realm=\"Tandem API\"")];
            return (status, realm, body).into_response();
        }
        (status, body).into_response()
    }
}
