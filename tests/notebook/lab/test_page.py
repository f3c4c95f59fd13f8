from __future__ import annotations
from pathlib import Path
def test_dev(federation, jupyter, page):
    page.on("console", lambda m: print("CONSOLE", m.type, m.text[:300]))
    path = jupyter.notebook("a", "%fed connect", "%%party bank\nfed.tables()", "%%party bank,agency\nimport time\ntime.sleep(3)", "x = 1",
        "%%coordinator\nframe = fed.align({'bank': 'loans', 'agency': 'invoices'}, on='sme_id')\nframe", "%%party bank,nobody\n1")
    page.goto(jupyter.lab(path))
    page.wait_for_selector(".fednb-lab-strip")
    page.screenshot(path="/tmp/a1.png")
    print(page.evaluate("""() => { const c=document.querySelector('.fednb-lab-cell'); const out=[];
      for (const e of [c,...c.children]) { const s=getComputedStyle(e); out.push([e.className,s.display,s.position,s.gridTemplateColumns,s.gridArea,s.height,s.width,s.padding,s.flexDirection].join(' | ')); } return out.join('\\n'); }"""))
    page.wait_for_selector("text=| Idle")
    page.click("text=%fed connect")
    page.keyboard.press("Shift+Enter")
    page.get_by_role("tab", name="Federation").click()
    page.screenshot(path="/tmp/a2.png")
    page.wait_for_selector("[data-section=members] li")
    for i in range(4):
        page.keyboard.press("Shift+Enter")
    page.wait_for_timeout(4000)
    page.screenshot(path="/tmp/a3.png")
    page.wait_for_timeout(8000)
    page.screenshot(path="/tmp/a4.png")
    print(page.evaluate("window._JUPYTERLAB['fednb-lab'].activation"))
