//! What the commands print, word by word: `cli/tests/cmd`. `TRYCMD=overwrite cargo test -p taskplatform-cli` accepts a change.

#[test]
fn commands_print_what_is_documented() {
    trycmd::TestCases::new().case("tests/cmd/*.toml");
}
