//! The one way attributes travel from what knows them to what writes them.

/// Receives attributes one by one; each output format (OTLP protobuf, OTLP JSON, a line of text, the page) is one.
/// Keys follow the semantic conventions and are given at most once per span or resource.
pub trait AttributeSink {
    fn str(&mut self, key: &str, value: &str);
    fn int(&mut self, key: &str, value: i64);
    fn bool(&mut self, key: &str, value: bool);
    fn double(&mut self, key: &str, value: f64);
    fn strs(&mut self, key: &str, values: &[&str]);
}
