// The module-federation container that JupyterLab and Notebook load. Written by hand, so that nothing has to be built:
// the modules beside it are ordinary ES modules, and what JupyterLab shares is asked for by name.
(() => {
  const here = document.currentScript.src;
  let scope;

  // All at once: else each is asked for only when the one that imports it is there, and JupyterLab waits for the last.
  for (const name of [
    "cells", "commands", "dom", "here", "inbox", "inboxes", "link", "magic", "palette", "picker", "plugin", "report",
    "run_panel", "sections", "sidebar", "training"
  ]) {
    const link = document.createElement("link");
    link.rel = "modulepreload";
    link.href = new URL(`${name}.js`, here);
    document.head.append(link);
  }

  async function shared(name) {
    const versions = scope[name];
    if (!versions) throw new Error(`fednb: this front end does not share ${name}`);
    const newest = Object.keys(versions).sort((a, b) => b.localeCompare(a, undefined, { numeric: true }))[0];
    return (await versions[newest].get())();
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["fednb-lab"] = {
    init: (given) => { scope = given; },
    get: async () => {
      const { plugin } = await import(new URL("plugin.js", here));
      const made = { __esModule: true, default: await plugin(shared) };
      return () => made;
    },
  };
})();
