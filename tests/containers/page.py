"""What a reviewer sees of a study on the cluster's MLflow server, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from engine import Trouble
from playwright.sync_api import Error, expect, sync_playwright

OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SIZE = {"width": 1600, "height": 1000}


def look(port: int, password: str, study: str, cells: Collection[str]) -> str:
    """Log in, find the study among the experiments and open it; return what was seen.

    Its table of runs must show cells of the study, and nothing else beside the study itself.

    A picture goes to the folder SEEDSWEEP_SCREENSHOTS, where that is set. Raises Trouble.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        msg = "no chromium here; on Debian: apt-get install chromium"
        raise Trouble(msg)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        context = browser.new_context(
            viewport=SIZE,  # type: ignore[arg-type]
            http_credentials={"username": "admin", "password": password},
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        try:
            page.goto(f"http://127.0.0.1:{port}/#/experiments")
            link = page.get_by_role("link", name=study, exact=True).first
            where = re.search(r"experiments/\d+", link.get_attribute("href") or "")
            assert where, f"no link to {study} among the experiments"
            page.goto(f"http://127.0.0.1:{port}/#/{where[0]}/runs?workflowType=machine_learning")
            rows = page.locator('[role=gridcell][col-id="attributes.`Run Name`"]')
            expect(rows.first).to_be_visible(timeout=60_000)
            # Each after the number of its colour.
            names = [re.sub(r"^#\w{6}\s+", "", text.strip()) for text in rows.all_inner_texts()]
            assert set(names) <= {study, *cells}, f"other runs than the study's: {names}"
            return f"experiment {study}, {len(names)} cells of {len(cells)}, first '{names[0]}'"
        except (Error, AssertionError) as failure:
            msg = f"MLflow's page: {failure}"
            raise Trouble(msg) from failure
        finally:
            if folder := os.environ.get("SEEDSWEEP_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / "containers-mlflow.png")
            browser.close()
