"""The arithmetic, against figures worked out by hand."""

import unittest

import figures
import summary
import tables
from figures import Spread


def sample(arm: str, turn: int, **found) -> dict:
    blank = {"cpu_us": None, "p50_us": 0, "p99_us": 0, "rps": 1, "peak_rss_mb": None, "errors": 0,
             "foreign_cores": 0}
    return {"kind": "cost", "cell": "1 KB", "arm": arm, "round": turn, **blank, **found}


class Figures(unittest.TestCase):
    def test_a_spread_is_the_median_between_its_extremes(self):
        self.assertEqual(Spread.of([3, 1, 2]), Spread(2, 1, 3))
        self.assertEqual(Spread.of([None, 4]), Spread(4, 4, 4))
        self.assertIsNone(Spread.of([None]))

    def test_a_ratio_is_taken_within_a_round_never_across(self):
        ours = [sample("x", 0, cpu_us=20), sample("x", 1, cpu_us=90), sample("x", 2, cpu_us=7)]
        envoy = [sample("envoy", 0, cpu_us=10), sample("envoy", 1, cpu_us=30)]
        self.assertEqual(figures.ratios(ours, envoy, "cpu_us"), [2, 3])
        self.assertEqual(figures.added(ours, envoy, "cpu_us"), [10, 60])

    def test_engines_counters_are_summed_over_labels_and_pods(self):
        def page(queries: int, hits: int, stop: int, length: int) -> str:
            return (f'# TYPE vllm:prefix_cache_queries_total counter\n'
                    f'vllm:prefix_cache_queries_total{{engine="0"}} {queries}.0\n'
                    f'vllm:prefix_cache_hits_total{{engine="0"}} {hits}\n'
                    f'vllm:request_success_total{{finished_reason="stop"}} {stop}\n'
                    f'vllm:request_success_total{{finished_reason="length"}} {length}\n')

        found = figures.pods([page(100, 50, 1, 1), page(0, 0, 0, 0)],
                             [page(200, 110, 2, 3), page(100, 20, 0, 1)])
        self.assertEqual(found["hit_rate"], 80 / 200)
        self.assertEqual(found["requests"], [3, 1])
        self.assertEqual(found["imbalance"], 1.5)

    def test_all_on_one_pod_of_three_is_three(self):
        self.assertEqual(figures.imbalance([9, 0, 0]), 3)
        self.assertEqual(figures.imbalance([3, 3, 3]), 1)
        self.assertIsNone(figures.imbalance([0, 0]))

    def test_percentiles_are_by_nearest_rank(self):
        values = list(range(1, 101))
        self.assertEqual([figures.percentile(values, share) for share in (0.5, 0.99, 1)],
                         [50, 99, 100])
        self.assertIsNone(figures.percentile([], 0.5))


class Summary(unittest.TestCase):
    def test_an_arm_is_compared_with_envoy_and_with_direct(self):
        records = [sample("direct", 0, p50_us=100), sample("envoy", 0, cpu_us=50, p50_us=300),
                   sample("x", 0, cpu_us=100, p50_us=1100, errors=2)]
        row = summary.cost(records)["1 KB"]["x"]
        self.assertEqual((row["cpu_ratio"].median, row["added_p50_ms"].median, row["errors"]),
                         (2, 1, 2))
        self.assertIsNone(summary.cost(records)["1 KB"]["direct"]["cpu_ratio"])

    def test_a_goal_is_the_best_peers_hits_and_never_our_own(self):
        def row(hits: float, load: float) -> dict:
            return {"hit_rate": Spread.of([hits]), "imbalance": Spread.of([load])}

        table = {"30": {"hearth": row(0.90, 1.02), "hearth-tokenized": row(0.99, 1.0),
                        "smg": row(0.91, 2.0), "envoy": row(0.4, 1.0)}}
        told, tokenized = summary.verdicts(table, {"30": (None, 1.1)})
        self.assertEqual(told, ("30", "hearth", 0.90, 0.91, 1.02, 1.1, False))
        self.assertEqual(tokenized, ("30", "hearth-tokenized", 0.99, 0.91, 1.0, 1.1, True))
        reached = [row[-1] for row in summary.verdicts(table, {"30": (0.88, 1.01)})]
        self.assertEqual(reached, [False, True], "balance counts as much as hits")

    def test_what_did_not_run_is_said_once(self):
        facts = {"arms": [{"name": "epp", "not_run": "no EPP binary"},
                          {"name": "smg", "not_run": None}]}
        record = {"kind": "cost", "arm": "smg", "not_run": "smg: not ready\nlong log"}
        rows = summary.not_run(facts, [record, record])
        self.assertEqual(rows, [("epp", "", "no EPP binary"), ("smg", "cost", "smg: not ready")])


class Tables(unittest.TestCase):
    def test_the_section_says_what_was_not_run_and_where_we_fall_short(self):
        facts = {"at": "then", "seconds": 3, "versions": {"envoy": "1.40", "epp": None},
                 "machine": {"cores": 2, "cpu": "x", "memory_gib": 24, "load_at_start": 9.0},
                 "selftest": {"client_ms": 201.0, "upstream_ms": 200.0}}
        cells = summary.cost([sample("direct", 0), sample("envoy", 0, cpu_us=50),
                              sample("hearth", 0, cpu_us=60), sample("hearth", 1, cpu_us=60)])
        text = tables.section(facts, [("epp", "", "no EPP binary")],
                              [("30", "hearth", 0.93, 0.947, 1.11, 1.1, False)], cells, {})
        for wanted in ("- epp: no EPP binary", "| 30 | hearth | 0.930 | 0.947 | 1.11 | 1.10 | **short** |",
                       "1–2 samples of 3 s", "| hearth | 1.20 |", "load 9.0", "Errors: none."):
            self.assertIn(wanted, text)
        self.assertNotIn("epp None", text)

    def test_numbers_keep_three_digits(self):
        self.assertEqual([tables.number(n) for n in (0, 0.123, 1.256, 12.34, 123.4, 9.96)],
                         ["0", "0.12", "1.26", "12.3", "123", "10.0"])

    def test_only_what_stands_between_the_markers_is_replaced(self):
        page = f"# Ours\n\n{tables.BEGIN}\n\nold\n\n{tables.END}\n\n## Next\n"
        renewed = tables.renewed(page, "new")
        self.assertEqual(renewed, page.replace("old", "new"))
        self.assertEqual(tables.renewed(renewed, "new"), renewed)
        with self.assertRaises(RuntimeError):
            tables.renewed("# no markers", "new")


if __name__ == "__main__":
    unittest.main()
