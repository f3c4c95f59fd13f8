// The extension: marks cells, fills the sidebar, and adds the picker, the commands and the menu.

import { CellMarks } from "./cells.js";
import { addCommands } from "./commands.js";
import { Inboxes } from "./inboxes.js";
import { Link } from "./link.js";
import { canTry, choose, dryRun, pickerFactory } from "./picker.js";
import { drawRun } from "./run_panel.js";
import { Sidebar } from "./sidebar.js";

export const SUPPORTED = { JupyterLab: [[4, 4], [5, 0]], "Jupyter Notebook": [[7, 4], [8, 0]] };
const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="16">
  <path class="jp-icon3" fill="none" stroke="#616161" stroke-width="5" d="M32 32 12 48M32 32l20 16M32 32V12"/>
  <g class="jp-icon3" fill="#616161"><circle cx="32" cy="12" r="9"/><circle cx="12" cy="50" r="9"/><circle cx="52" cy="50" r="9"/>
  <rect x="22" y="24" width="20" height="16" rx="2"/></g></svg>`;

export function supported(name, version) {
  const range = SUPPORTED[name];
  const [major, minor] = version.split(".").map(Number);
  const below = ([a, b]) => major < a || (major === a && minor < b);
  return !range || (!below(range[0]) && below(range[1]));
}

export async function plugin(shared) {
  const names = ["@lumino/widgets", "@lumino/commands", "@jupyterlab/notebook", "@jupyterlab/apputils", "@jupyterlab/services",
    "@jupyterlab/ui-components", "@jupyterlab/outputarea", "@jupyterlab/application"];
  const [widgets, lumino, notebook, apputils, services, ui, outputs, application] = await Promise.all(names.map(shared));
  return [{
    id: "fednb-lab:plugin",
    description: "Cells that run at other parties, and the federation beside the notebook.",
    autoStart: true,
    requires: [notebook.INotebookTracker],
    optional: [apputils.ICommandPalette, apputils.IToolbarWidgetRegistry, application.ILayoutRestorer],
    activate: (app, tracker, palette, toolbars, restorer) => {
      if (!supported(app.name, app.version)) {
        const known = Object.entries(SUPPORTED).map(([name, [from, to]]) => `${name} from ${from.join(".")}, below ${to[0]}`);
        const text = `fednb's extension knows ${known.join("; ")}. This is ${app.name} ${app.version}: it stays out of the way.`;
        console.warn(text);
        apputils.Notification.warning(text, { autoClose: false });
        return;
      }
      activate(app, tracker, { palette, toolbars, restorer }, { ...widgets, ...lumino, ...notebook, ...apputils, ...services, ...ui, ...outputs });
    },
  }];
}

function activate(app, tracker, { palette, toolbars, restorer }, lab) {
  performance.mark("fednb-lab:activate");
  for (const name of ["style.css", "training.css"]) {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL(name, import.meta.url);
    document.head.append(style);
  }

  const opened = new Map(); // notebook panel -> { panel, link, marks }
  const current = () => opened.get(tracker.currentWidget) || null;
  const of = (cell) => [...opened.values()].find(({ panel }) => panel.content.widgets.includes(cell)) || null;

  // ---- panels of their own

  const panels = new Map();
  const alone = app.name === "Jupyter Notebook"; // its main area has room for the notebook only
  const showPanel = (id, title, draw) => {
    if (!panels.has(id)) {
      if (alone) for (const other of [...panels.values()]) other.dispose();
      const content = new lab.Widget();
      content.addClass("fednb-lab-panel");
      const panel = new lab.MainAreaWidget({ content });
      panel.id = id;
      panel.title.label = panel.title.caption = title;
      panel.title.closable = true;
      panel.toolbar.hide();
      const stop = draw(content.node);
      panel.disposed.connect(() => { stop(); panels.delete(id); });
      panels.set(id, panel);
      const beside = tracker.currentWidget;
      if (alone) app.shell.add(panel, "right");
      else app.shell.add(panel, "main", beside ? { mode: "split-right", ref: beside.id } : {});
    }
    app.shell.activateById(id);
  };

  // ---- the sidebar

  const side = new lab.Widget();
  side.id = "fednb-sidebar";
  side.addClass("fednb-lab-sidebar");
  side.title.caption = "Federation";
  side.title.icon = new lab.LabIcon({ name: "fednb:federation", svgstr: ICON });
  side.node.setAttribute("role", "region");
  side.node.setAttribute("aria-label", "Federation");
  app.shell.add(side, "left", { rank: 150, type: "Federation" });
  if (restorer) restorer.add(side, side.id); // a page that is loaded again shows it where it was shown
  const inboxes = new Inboxes(() => {
    const count = inboxes.waiting;
    const words = count === 1 ? "1 request waits for you" : `${count} requests wait for you`;
    side.title.dataset = count ? { "fednb-waiting": count > 99 ? "99+" : String(count) } : {};
    side.title.caption = count ? `Federation: ${words}` : "Federation";
    sidebar.later();
  }, (count) => lab.Notification.info(count === 1 ? "An analyst's request waits for you." : `${count} requests of analysts wait for you.`, {
    autoClose: 8000,
    actions: [{ label: "Show", caption: "Show the federation's sidebar", callback: () => app.shell.activateById(side.id) }],
  }), (news) => sidebar.say(news));
  const sidebar = new Sidebar(side.node, inboxes, {
    connect: () => app.commands.execute("fednb:connect"),
    demo: () => app.commands.execute("fednb:start-demo"),
    refresh: () => app.commands.execute("fednb:refresh"),
    cancel: (run) => { const found = current(); if (found) found.link.ask("cancel", { run }); },
    show: (run, title) => {
      const found = current();
      if (found) showPanel(`fednb-run-${run}`, title, (node) => drawRun(node, found.link, run));
    },
    look: (link, command) => {
      const found = [...opened.values()].find((each) => each.link === link);
      if (!found || !/^%fed inbox [^\n]+$/.test(command)) return;
      app.shell.activateById(found.panel.id);
      insertAndRun(found.panel, command, lab);
    },
  });
  const selected = () => sidebar.select(tracker.activeCell ? tracker.activeCell.model.id : "");
  const follow = () => {
    const found = current();
    sidebar.follow(found && found.link, found ? found.panel.title.label : "");
    selected();
  };

  // ---- notebooks

  const open = (panel) => {
    if (opened.has(panel)) return;
    const link = new Link(lab.KernelMessage);
    const marks = new CellMarks(panel, link);
    opened.set(panel, { panel, link, marks });
    inboxes.add(link);
    const session = panel.sessionContext;
    const attach = () => link.attach(session.session && session.session.kernel);
    session.kernelChanged.connect(attach);
    attach();
    panel.context.ready.then(() => marks.scan()).catch(() => undefined);
    panel.disposed.connect(() => {
      marks.dispose();
      link.detach();
      inboxes.remove(link);
      opened.delete(panel);
      follow();
    });
    if (panel === tracker.currentWidget) follow();
  };
  tracker.forEach(open);
  tracker.widgetAdded.connect((_, panel) => open(panel));
  tracker.currentChanged.connect(follow);
  tracker.activeCellChanged.connect(selected);
  follow();

  const queued = (yes) => (_, { cell }) => {
    const found = of(cell);
    if (found) found.marks.queued(cell, yes);
  };
  if (lab.NotebookActions.executionScheduled) lab.NotebookActions.executionScheduled.connect(queued(true));
  lab.NotebookActions.executed.connect(queued(false));

  // ---- picker, commands

  if (toolbars) toolbars.addFactory("Cell", "fednb-party", pickerFactory(of, lab));
  const choosePlace = ({ panel, link }) => {
    const cell = panel.content.activeCell;
    if (cell && cell.model.type === "code") choose(cell, link, cell.inputArea ? cell.inputArea.node : cell.node, lab);
  };
  const tryCell = ({ panel, link }) => {
    const cell = panel.content.activeCell;
    if (cell && cell.model.type === "code" && canTry(cell, link)) return dryRun(cell, panel, lab);
    lab.Notification.info("A dry run needs a cell with %%party NAME, of a party whose owner approves cells: those invent rows.", { autoClose: 8000 });
    return undefined;
  };
  addCommands(app, { current, inboxes, palette, choosePlace, tryCell, showPanel, lab });
  performance.measure("fednb-lab:activate", "fednb-lab:activate");
}

// A cell below the one in front, run at once.
function insertAndRun(panel, source, { NotebookActions }) {
  NotebookActions.insertBelow(panel.content);
  panel.content.activeCell.model.sharedModel.setSource(source);
  return NotebookActions.run(panel.content, panel.sessionContext);
}
