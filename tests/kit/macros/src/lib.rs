//! Attributes that make tests of functions, so that a test is named once.

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// The functions of `testkit` that run a test.
const EXECUTORS: [&str; 5] = ["smol", "async_std", "tokio_multi_thread", "tokio_current_thread_without_io", "block_on"];

/// Runs an `async fn() -> Outcome` as one test per executor: `name::smol`, `name::async_std` and so on.
///
/// With a parameter, `async fn(itself: Itself) -> Outcome`, the test can run itself again as a child, in a process of its
/// own. On executors that have threads the test is spawned, so that everything that it awaits has to be `Send + 'static`.
#[proc_macro_attribute]
pub fn on_every_executor(_: TokenStream, function: TokenStream) -> TokenStream {
    let mut name = None;
    let mut has_parameter = false;
    let mut tokens = function.clone().into_iter();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(word) = token else { continue };
        if word.to_string() == "fn" {
            name = tokens.next();
            if let Some(TokenTree::Group(parameters)) = tokens.next() {
                has_parameter = parameters.delimiter() == Delimiter::Parenthesis && !parameters.stream().is_empty();
            }
            break;
        }
    }
    let name = name.expect("the attribute is put on a function");
    let case = if has_parameter {
        format!("|itself| ::std::boxed::Box::pin(super::{name}(itself))")
    } else {
        format!("|_| ::std::boxed::Box::pin(super::{name}())")
    };
    let test = |executor| {
        format!(
            r#"#[test] fn {executor}() {{
                ::testkit::run(concat!(module_path!(), "::{executor}"), ::testkit::{executor}, {case});
            }}"#
        )
    };
    let module = format!("mod {name} {{ {} }}", EXECUTORS.map(test).concat());
    let mut output = function;
    output.extend(module.parse::<TokenStream>().expect("the module is Rust"));
    output
}
