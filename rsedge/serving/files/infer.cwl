# Written by `rsedge deploy`: `rsedge infer` as an application package (OGC 20-089r1): scenes come staged as a folder with a STAC
# catalog, maps leave as a folder. Check: cwltool --validate infer.cwl
cwlVersion: v1.2
$namespaces:
  s: https://schema.org/
s:softwareVersion: "@{version}@"
s:name: rsedge infer @{name}@
s:description: "@{words}@"
s:license: Apache-2.0
$graph:
  - class: Workflow
    id: rsedge-infer
    label: "@{name}@"
    doc: "@{words}@"
    requirements: {}
    inputs:
      scenes:
        type: Directory
        label: Scenes
        doc: A folder with a STAC catalog (catalog.json) of items whose assets are GeoTIFFs; bands are matched by their names.
      overlap:
        type: int?
        label: Overlap of tiles
        doc: Pixels; an eighth of a tile when not given.
    outputs:
      maps:
        type: Directory
        outputSource: infer/maps
    steps:
      infer:
        run: "#infer"
        in:
          scenes: scenes
          overlap: overlap
        out: [maps]
  - class: CommandLineTool
    id: infer
    requirements:
      NetworkAccess:
        networkAccess: false
      ResourceRequirement:
        coresMin: 1
        ramMin: @{memory_mib}@
      EnvVarRequirement:
        envDef:
          PYTHONDONTWRITEBYTECODE: "1"
      InlineJavascriptRequirement: {}
    hints:
      DockerRequirement:
        dockerPull: @{image}@
    baseCommand: [rsedge, infer, /bundle]
    arguments:
      - position: 1
        valueFrom: $(inputs.scenes.path)/catalog.json
      - position: 3
        prefix: --output-dir
        valueFrom: maps
    inputs:
      scenes:
        type: Directory
      overlap:
        type: int?
        inputBinding:
          position: 2
          prefix: --overlap
    outputs:
      maps:
        type: Directory
        outputBinding:
          glob: maps
