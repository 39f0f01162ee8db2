"""Honest, fast, shareable studies of bone-fracture X-ray classifiers.

The rooms, ground floor first; a module imports only from those that stand before it (`tests/test_cli.py` checks that):

words     settings · run_options · provenance · studies · records · tables · labels · cache
images    decoders · dicom_values · dicoms · deep_pictures · radiographs · anatomy · phantoms
data      boxes · listed_tables · listing · manifest · pixels · signatures · alignment · duplicates · splits
learning  weights · backbones · engines · features · training · prediction · finetuning
judging   delong · intervals · planning · influence · thresholds · metrics · repeats · operating · calibration · breakdown ·
          signflips · paired · ensemble · comparison · decisions · gaps · readers · inflation · shortcuts ·
          shortcut_verdicts · explain · map_places · localization
showing   plots · plots_evaluation · viewing · widgets_data · widgets_curves · widgets_images · reading_room · reporting ·
          checklist · render · pages · sharing · audit
running   steps · execution · executors · scheduling · series · sweeps · app · cli
"""

__version__ = "0.1.0"
