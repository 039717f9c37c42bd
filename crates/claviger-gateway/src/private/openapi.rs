//! The OpenAPI document of the private listener. What it says of an address stands at the handler.

use http::StatusCode;
use serde::Deserialize;
use utoipa::{
    ToSchema,
    openapi::{
        ComponentsBuilder, Content, Info, OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder,
        path::{Operation, Paths},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::rights::Right;

/// The scheme of the credentials.
const CREDENTIAL: &str = "credential";

/// An error.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Failure)]
#[allow(dead_code, reason = "only its shape is needed")]
pub(super) struct Failure {
    /// A stable code.
    error: String,
    /// A text for people.
    message: String,
    /// Where a user can sign in, if that helps.
    login: Option<String>,
    /// Why the user's session ended.
    reason: Option<String>,
}

/// The document without its addresses.
pub(super) fn about() -> OpenApi {
    let credential = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "A secret that `claviger credentials add` makes. Each operation names the right that it needs.",
    ));
    let mut info = Info::new("Claviger's private listener", env!("CARGO_PKG_VERSION"));
    info.description = Some("What programs of the site may ask, each with a credential.".to_owned());
    let components = ComponentsBuilder::new()
        .schema_from::<Failure>()
        .security_scheme(CREDENTIAL, SecurityScheme::Http(credential.build()));
    OpenApiBuilder::new().info(info).components(Some(components.build())).build()
}

/// Says of each operation which right it needs, and how it refuses a credential.
pub(super) fn describe(paths: &mut Paths, right: &Right) {
    for operation in paths.paths.values_mut().flat_map(operations) {
        operation.security = Some(vec![SecurityRequirement::new(CREDENTIAL, [right.to_string()])]);
        let refusals = [
            (StatusCode::UNAUTHORIZED, "There is no valid credential"),
            (StatusCode::FORBIDDEN, "The credential does not have the right"),
            (StatusCode::TOO_MANY_REQUESTS, "Too many requests had no valid credential"),
        ];
        for (status, what) in refusals {
            let responses = &mut operation.responses.responses;
            responses.entry(status.as_str().to_owned()).or_insert_with(|| RefOr::T(failure(what)));
        }
    }
}

fn operations(item: &mut utoipa::openapi::PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten()
}

fn failure(what: &str) -> Response {
    let content = Content::new(Some(Ref::from_schema_name("Failure")));
    ResponseBuilder::new().description(what).content("application/json", content).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private::{MISSING_RIGHT, NO_CREDENTIAL, TOO_MANY_TRIES, WRONG_CREDENTIAL, document};

    #[test]
    fn the_document_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi-private.json");
        let document = document().unwrap();
        if std::fs::read_to_string(path).unwrap_or_default() != document {
            std::fs::write(path, document).unwrap();
            panic!(
                "docs/openapi-private.json was out of date and has been rewritten: look at it and commit it"
            );
        }
    }

    #[tokio::test]
    async fn errors_have_the_shape_that_the_document_gives() {
        for problem in [NO_CREDENTIAL, WRONG_CREDENTIAL, TOO_MANY_TRIES, MISSING_RIGHT] {
            let body = axum::body::to_bytes(problem.json().into_body(), 4096).await.unwrap();
            serde_json::from_slice::<Failure>(&body).unwrap();
        }
    }
}
