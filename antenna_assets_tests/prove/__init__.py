"""`make prove`: the long form of the tests of each row, in parts that can be resumed, and the page that says what was seen."""
