// What the menu "Federation", the palette and the keyboard can do.

import { FEDNB } from "./here.js";
import { drawReport } from "./report.js";

const CONNECT = "%load_ext fednb\n%fed connect";
const DEMO = `${FEDNB} demo --members`;

// `current()`: the notebook panel and link that are in front, or null.
export function addCommands(app, { current, inboxes, palette, choosePlace, tryCell, showPanel, lab }) {
  const { NotebookActions, Notification } = lab;
  const { commands } = app;
  const withNotebook = (action) => () => {
    const found = current();
    if (found) return action(found);
    Notification.warning("Open a notebook first.", { autoClose: 4000 });
    return undefined;
  };
  const add = (name, label, caption, execute) => {
    commands.addCommand(`fednb:${name}`, { label, caption, execute });
    if (palette) palette.addItem({ command: `fednb:${name}`, category: "Federation" });
  };

  add("connect", "Connect This Notebook", "Run %fed connect in a cell at the top", withNotebook(({ panel }) => {
    const notebook = panel.content;
    const there = notebook.widgets.findIndex((cell) => /^%fed connect\b/m.test(cell.model.sharedModel.getSource()));
    notebook.activeCellIndex = Math.max(0, there);
    if (there < 0) {
      NotebookActions.insertAbove(notebook);
      notebook.activeCell.model.sharedModel.setSource(CONNECT);
    }
    return NotebookActions.run(notebook, panel.sessionContext);
  }));

  add("start-demo", "Start the Demo Federation", "Start its members in a terminal", async () => {
    if (!app.serviceManager.terminals.isAvailable()) {
      Notification.warning(`There are no terminals here: run \`${DEMO}\` in one of your own.`);
      return;
    }
    const terminal = await app.serviceManager.terminals.startNew();
    const begin = () => terminal.send({ type: "stdin", content: [`${DEMO}\r`] });
    if (terminal.connectionStatus === "connected") begin();
    else {
      const once = (_, status) => {
        if (status !== "connected") return;
        terminal.connectionStatusChanged.disconnect(once);
        begin();
      };
      terminal.connectionStatusChanged.connect(once);
    }
    await commands.execute("terminal:open", { name: terminal.name });
  });

  add("insert-party-cell", "Insert a Party Cell", "A cell below that runs at a party", withNotebook(async ({ panel, link }) => {
    const notebook = panel.content;
    NotebookActions.insertBelow(notebook);
    const cell = notebook.activeCell;
    cell.model.sharedModel.setSource(`%%party ${link.parties[0] || "NAME"}\n`);
    await cell.ready; // until then it has no editor
    await new Promise(requestAnimationFrame); // the palette gives the focus back when it closes
    notebook.mode = "edit";
    cell.editor.setCursorPosition({ line: 1, column: 0 });
    cell.editor.focus();
  }));

  add("choose-member", "Choose Where the Cell Runs", "A menu of members for the selected cell", withNotebook(choosePlace));

  add("dry-run", "Dry Run on Mock Data", "Run the selected cell here, on rows that its party invents", withNotebook(tryCell));

  add("interrupt", "Interrupt All Parties", "Interrupt this notebook's cells at every member", withNotebook(({ panel, link }) => {
    // not both: a second interrupt means that kernels are to be killed
    if (link.busy) return link.ask("interrupt");
    const session = panel.sessionContext.session;
    return session && session.kernel ? session.kernel.interrupt() : undefined;
  }));

  add("show-sidebar", "Show the Federation", "Members, tables, runs and receipts", () => app.shell.activateById("fednb-sidebar"));
  add("refresh", "Ask Members Again", "Refresh the sidebar", withNotebook(({ link }) => link.ask("refresh")));

  add("audit-report", "Open the Audit Report", "Whether your own members' logs are whole, and what left members for this notebook",
    withNotebook(({ panel, link }) => showPanel(`fednb-report-${panel.id}`, "Audit report",
      (node) => drawReport(node, panel, link, inboxes))));
}
