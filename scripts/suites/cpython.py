# Runs one of CPython's own test modules and writes what came of each test, one a line: RESULT ID.
# Arguments: MODULE RESULTS [LEFT_OUT...], where LEFT_OUT is a part of the ids of tests to leave out.
import faulthandler
import sys
import unittest

from test import support

module, results, *left_out = sys.argv[1:]
SLOWEST_TEST = 180  # seconds; who takes longer hangs

support.use_resources = ["network"]


class Result(unittest.TextTestResult):
    def __init__(self, *args):
        super().__init__(*args)
        self.out = open(results, "w")

    def note(self, test, result):
        print(result, test.id(), file=self.out, flush=True)

    def startTest(self, test):
        super().startTest(test)
        faulthandler.dump_traceback_later(SLOWEST_TEST, exit=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "passed")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note(test, "failed")

    def addError(self, test, error):
        super().addError(test, error)
        self.note(test, "error")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped")

    def addExpectedFailure(self, test, error):
        super().addExpectedFailure(test, error)
        self.note(test, "expected-failure")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note(test, "unexpected-success")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            self.note(subtest, "failed")


def each(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


found = unittest.defaultTestLoader.loadTestsFromName(module)
wanted = [test for test in each(found) if not any(part in test.id() for part in left_out)]
# Grouped again, so that what a class or a module sets up is set up once.
runner = unittest.TextTestRunner(resultclass=Result, verbosity=2)
runner.run(unittest.TestSuite(wanted))
