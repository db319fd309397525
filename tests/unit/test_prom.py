#!/usr/bin/env python3
"""The checker of metrics sees each mistake that it is there for."""
import importlib.util
import os
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SPEC = importlib.util.spec_from_file_location("prom", os.path.join(HERE, "../e2e/harness/prom.py"))
prom = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(prom)

HEAD = "# HELP a_total A.\n# TYPE a_total counter\n"
HISTOGRAM = "# HELP h H.\n# TYPE h histogram\n"
WRONG = {
    "a second TYPE": HEAD + "# TYPE a_total counter\na_total 1\n",
    "a second HELP": HEAD + "# HELP a_total B.\na_total 1\n",
    "a counter without _total": "# HELP a A.\n# TYPE a counter\na 1\n",
    "a gauge with _total": "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n",
    "no TYPE": "# HELP a_total A.\na_total 1\n",
    "no HELP": "# TYPE a_total counter\na_total 1\n",
    "a name that is none": "# HELP a A.\n# TYPE a gauge\na.b 1\n",
    "a label that is none": HEAD + "a_total{x-y=\"1\"} 1\n",
    "a label twice": HEAD + "a_total{x=\"1\",x=\"2\"} 1\n",
    "a quote in a value": HEAD + "a_total{x=\"1\"2\"} 1\n",
    "a wrong escape": HEAD + "a_total{x=\"\\d\"} 1\n",
    "a series twice": HEAD + "a_total{x=\"1\",y=\"2\"} 1\na_total{y=\"2\",x=\"1\"} 1\n",
    "no number": HEAD + "a_total one\n",
    "a negative counter": HEAD + "a_total -1\n",
    "series apart": HEAD + "a_total 1\n# HELP b B.\n# TYPE b gauge\nb 1\na_total{x=\"1\"} 1\n",
    "no end": HEAD + "a_total 1",
    "buckets that shrink": HISTOGRAM + "h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
    "no last bucket": HISTOGRAM + "h_bucket{le=\"1\"} 2\nh_sum 1\nh_count 2\n",
    "another count": HISTOGRAM + "h_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 3\n",
}
RIGHT = (HEAD + "a_total{x=\"1\\\"2\\\\3\\n\"} 1\na_total{x=\"\"} 2.5e3\n" + HISTOGRAM +
         "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 2\n")


class Checker(unittest.TestCase):
    def test_each_mistake_is_seen(self):
        for what, text in WRONG.items():
            with self.subTest(what):
                self.assertNotEqual(prom.check(text)[0], [])

    def test_what_is_right_passes(self):
        self.assertEqual(prom.check(RIGHT)[0], [])


if __name__ == "__main__":
    unittest.main()
