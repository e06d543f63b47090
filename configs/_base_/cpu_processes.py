# To add to a config for several processes on a machine without a GPU: _base_ = ['config.py', '.../cpu_processes.py'],
# or on the command line: --cfg-options runner_type=mmdet_detr_plugin.CPURunner
runner_type = 'mmdet_detr_plugin.CPURunner'
