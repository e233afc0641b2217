import asyncio
import logging
import threading

import pytest

from ostler.log import adapter, extra, fields
from ostler.log.fields import fields_of


class Catch(logging.Handler):
    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        self.found.append(fields_of(record))


@pytest.fixture
def caught(plain_logger):
    handler = Catch()
    plain_logger.addHandler(handler)
    return plain_logger, handler.found


def test_lines_carry_the_fields_of_the_block_they_are_in(caught):
    logger, found = caught
    with fields(service="volume"):
        with fields(request_id="r1"):
            logger.info("inside")
        logger.info("between")
    logger.info("outside")
    assert found == [{"service": "volume", "request_id": "r1"}, {"service": "volume"}, {}]


async def test_tasks_and_threads_do_not_mix(caught):
    logger, found = caught

    async def one(name):
        with fields(request_id=name):
            await asyncio.sleep(0)
            logger.info("x")

    await asyncio.gather(one("a"), one("b"))
    with fields(request_id="mine"):
        thread = threading.Thread(target=lambda: logger.info("x"))
        thread.start()
        thread.join()
    assert found == [{"request_id": "a"}, {"request_id": "b"}, {}]


def test_an_adapter_adds_its_fields_and_those_of_the_call(caught):
    logger, found = caught
    log = adapter(logger, service="volume")
    log.info("x", extra={"driver": "local"})
    with fields(request_id="r1"):
        log.warning("x")
    assert found == [{"service": "volume", "driver": "local"}, {"request_id": "r1", "service": "volume"}]


def test_an_adapter_of_an_adapter_has_the_fields_of_both(caught):
    logger, found = caught
    adapter(adapter(logger, service="volume"), driver="local").info("x")
    adapter(logging.LoggerAdapter(logger, {"a": 1}), b=2).info("x")
    adapter(logging.LoggerAdapter(logger), b=2).info("x")
    assert found == [{"service": "volume", "driver": "local"}, {"a": 1, "b": 2}, {"b": 2}]


def test_names_that_logging_keeps_for_itself_are_no_trouble(caught):
    logger, found = caught
    adapter(logger, name="x", args=1, message="y").info("x", extra={"module": "z"})
    assert found == [{"name": "x", "args": 1, "message": "y", "module": "z"}]


def test_extra_of_a_plain_logger_counts_as_fields(caught):
    logger, found = caught
    logger.info("x", extra={"driver": "local"})
    assert found == [{"driver": "local"}]


def test_extra_gives_a_plain_logger_fields_of_any_names(caught):
    logger, found = caught
    logger.info("x", extra=extra(name="a", module="b"))
    adapter(logger, service="volume").info("x", extra=extra(name="a"))
    assert found == [{"name": "a", "module": "b"}, {"service": "volume", "name": "a"}]
